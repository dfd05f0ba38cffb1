"""Requests to servers that score or judge: many at once, patient to a deadline, never longer."""

import asyncio
import random
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from rlhf_eval.addresses import on_this_machine
from rlhf_eval.config.reward_schema import EndpointConfig, RewardModelConfig
from rlhf_eval.errors import ConfigError, StageError
from rlhf_eval.keys import key_in, without_secrets

PAUSE, LONGEST_PAUSE = 0.5, 15.0
"""Seconds before the first retry, and at most; each pause is up to twice the one before."""
BUSY = {408, 409, 425, 429, 500, 502, 503, 504}


def endpoint_of(config: RewardModelConfig) -> EndpointConfig:
    """The endpoint of a reward model.

    Raises:
        ConfigError: it has none, or no address.
    """
    if config.endpoint is None or not config.endpoint.base_url:
        raise ConfigError(
            f"Reward model '{config.name}' has no address.", "Set reward_model.endpoint.base_url."
        )
    return config.endpoint


def post_all(endpoint: EndpointConfig, path: str, bodies: Sequence[dict[str, Any]]) -> list[Any]:
    """Answers to several POST requests, in their order; None for one that had none by the deadline.

    A busy server (429, 5xx, or none listening) is asked again with growing pauses, or after as long as it
    says in `Retry-After`, until `deadline_seconds` have passed since the call.

    Args:
        path: appended to the base URL.

    Raises:
        ConfigError: the key's variable is not set.
        StageError: the server refuses the request as such, so that no later one could succeed.
    """
    return asyncio.run(_post_all(endpoint, path, bodies)) if bodies else []


async def _post_all(endpoint: EndpointConfig, path: str, bodies: Sequence[dict[str, Any]]) -> list[Any]:
    import httpx

    url = endpoint.base_url.rstrip("/") + path
    answers: list[Any] = [None] * len(bodies)
    waiting = iter(range(len(bodies)))
    limits = httpx.Limits(max_connections=endpoint.concurrency)
    async with httpx.AsyncClient(
        timeout=endpoint.timeout_seconds,
        headers=_headers(endpoint),
        limits=limits,
        # Reading the certificates takes longer than a small request, and plain HTTP has no use for them.
        verify=url.startswith("https"),
        # A proxy meant for the outside world must not stand between a run and its own machine.
        trust_env=not on_this_machine(url),
    ) as client:

        async def work() -> None:
            for place in waiting:
                answers[place] = await _post(client, url, bodies[place])

        workers = asyncio.gather(*(work() for _ in range(min(endpoint.concurrency, len(bodies)))))
        # What was answered by the deadline is kept; the rest stays None and is counted as invalid.
        with suppress(TimeoutError):
            await asyncio.wait_for(workers, endpoint.deadline_seconds)
    return answers


async def _post(client: Any, url: str, body: dict[str, Any]) -> Any:
    import httpx

    pause = PAUSE
    while True:
        seconds = pause * random.uniform(0.5, 1.0)
        try:
            response = await client.post(url, json=body)
        except httpx.TransportError:
            pass
        else:
            if response.is_success:
                return response.json()
            if response.status_code not in BUSY:
                raise StageError(
                    f"{url} refuses a request ({response.status_code}): "
                    f"{without_secrets(' '.join(response.text.split()))[:300]}",
                    "Check reward_model.endpoint (address, protocol, key) and reward_model.model.",
                )
            asked = response.headers.get("Retry-After", "")
            seconds = float(asked) if asked.replace(".", "", 1).isdecimal() else seconds
        await asyncio.sleep(seconds)
        pause = min(2 * pause, LONGEST_PAUSE)


def _headers(endpoint: EndpointConfig) -> dict[str, str]:
    variable = endpoint.api_key_variable
    if variable is None:
        return {}
    key = key_in(variable)
    if not key:
        raise ConfigError(f"The environment variable {variable} is not set.", f"export {variable}=…")
    return {"Authorization": f"Bearer {key}"}
