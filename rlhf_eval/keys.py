"""Keys and passwords: read from the environment, and taken out of every text that is kept or shown."""

import os
import re

NAMES = re.compile(r"(KEY|TOKEN|SECRET|PASSWORD|CREDENTIALS?)$", re.IGNORECASE)
"""Ends of the names of environment variables that hold secrets."""
CREDENTIALS = re.compile(r"://[^/?#\s]*@")
"""User and password in an address; they do not belong in a record."""
LEAST_CHARACTERS = 8
"""A shorter value of a variable may stand in a text by chance."""
_named: set[str] = set()


def key_in(variable: str) -> str:
    """The key that an environment variable holds, empty where it is not set. `without_secrets` knows the
    variable from then on, whatever its name."""
    _named.add(variable)
    return os.environ.get(variable, "").strip()


def secrets() -> dict[str, str]:
    """Value → name of the environment variables that hold secrets: those that keys were read from, and those
    that are named like secrets."""
    values = {name: value.strip() for name, value in os.environ.items()}
    return {
        value: name
        for name, value in values.items()
        if (name in _named or NAMES.search(name)) and len(value) >= LEAST_CHARACTERS
    }


def without_secrets(text: str) -> str:
    """The text without the values of such variables, and without user and password in addresses. A server may
    send back in its refusal what it was sent."""
    found = secrets()
    for value in sorted(found, key=len, reverse=True):  # one may be the beginning of another
        for form in (value, repr(value)[1:-1]):  # as it is, and as a client quotes what it cannot send
            text = text.replace(form, f"<{found[value]}>")
    return CREDENTIALS.sub("://", text)
