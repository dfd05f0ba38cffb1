"""Addresses of servers."""

import ipaddress
from urllib.parse import urlsplit


def on_this_machine(url: str) -> bool:
    """Whether an address is of this very machine: no proxy meant for the outside world is asked for it."""
    host = urlsplit(url).hostname or ""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
