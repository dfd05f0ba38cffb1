"""A reward model behind HTTP, for many training jobs at once.

    POST /score     {"conversations": [[{"role", "content"}, …], …], "deadline_seconds": 60}
                    → {"scores": [number or null, …]}: null is an invalid score
    GET  /health    {"status": "ok", "reward_model": name, "waiting_tokens": number}
    GET  /metrics   Prometheus text

A request that is malformed is refused (400), one that would overfill the queue is told when to come again
(503, Retry-After), and one that was not answered by its deadline gives up its place (504).
"""

import asyncio
import hmac
import math
from collections.abc import AsyncIterator, Hashable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from rlhf_eval.errors import RlhfEvalError
from rlhf_eval.records import Conversation, Message
from rlhf_eval.rewards.batcher import Batcher, QueueFull
from rlhf_eval.rewards.interface import RewardModel
from rlhf_eval.rewards.local import LocalRewardModel
from rlhf_eval.rewards.rendering import check

BATCHES_WAITING = 64
"""How many full batches may wait before clients are sent away."""
LONGEST_DEADLINE = 1800.0
CHARACTERS_PER_TOKEN = 4


class Service:
    """A reward model and its queue."""

    def __init__(self, reward_model: RewardModel, name: str, batch_tokens: int) -> None:
        self.reward_model = reward_model
        self.name = name
        self.local = reward_model if isinstance(reward_model, LocalRewardModel) else None
        self.batcher = Batcher(self._work, batch_tokens, BATCHES_WAITING * batch_tokens)

    async def score(self, conversations: Sequence[Conversation], seconds: float) -> list[float | None]:
        """Scores by the deadline; None where invalid.

        Raises:
            DataError: a malformed conversation.
            QueueFull: come again later.
            TimeoutError: the deadline has passed.
        """
        check(conversations)
        keys: list[Hashable]
        if self.local:
            # Tokenising in a thread keeps the server answering; tokenizers release the interpreter's lock.
            keys = list(await asyncio.to_thread(self.local.render, conversations))
            sizes = [len(ids) if ids else 0 for ids in keys]  # type: ignore[arg-type]
        else:
            keys = list(conversations)
            sizes = [1 + sum(len(m.content) for m in c) // CHARACTERS_PER_TOKEN for c in conversations]
        asked = [place for place, key in enumerate(keys) if key]
        futures = self.batcher.submit([keys[place] for place in asked], [sizes[place] for place in asked])
        try:
            found = await asyncio.wait_for(
                asyncio.gather(*(asyncio.wrap_future(future) for future in futures)), seconds
            )
        finally:
            for future in futures:
                future.cancel()
        scores: list[float | None] = [None] * len(keys)
        for place, score in zip(asked, found, strict=True):
            scores[place] = score
        return scores

    def _work(self, keys: Sequence[Any]) -> list[float | None]:
        batch = self.local.score_tokens(keys) if self.local else self.reward_model.score(keys)
        return [
            float(score) if valid else None for score, valid in zip(batch.scores, batch.valid, strict=True)
        ]


def application(service: Service, token: str | None) -> Starlette:
    """The server. With a token every request but `/health` must carry it as a bearer."""
    from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, generate_latest
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

    registry = CollectorRegistry()
    answered = Counter("reward_requests", "Requests to /score by status.", ["status"], registry=registry)

    class Queue:
        """Reads the batcher's counters when Prometheus asks."""

        def collect(self) -> Any:
            done = service.batcher.counters
            yield GaugeMetricFamily(
                "reward_waiting_tokens", "Tokens that wait.", value=service.batcher.waiting_tokens
            )
            for name, words, value in (
                ("conversations", "Conversations scored, duplicates once.", done.items),
                ("tokens", "Tokens that had to be computed.", done.tokens),
                ("padded_tokens", "Tokens that were computed, padding included.", done.padded_tokens),
                ("batches", "Forward passes.", done.batches),
                ("busy_seconds", "Seconds in forward passes.", done.busy_seconds),
                ("invalid", "Conversations without a valid score.", done.invalid),
            ):
                yield CounterMetricFamily(f"reward_{name}", words, value=value)

    registry.register(Queue())

    async def score(request: Request) -> Response:
        response = await _score(service, request)
        answered.labels(status=str(response.status_code)).inc()
        return response

    async def health(request: Request) -> Response:
        return JSONResponse(
            {
                "status": "ok",
                "reward_model": service.name,
                "waiting_tokens": service.batcher.waiting_tokens,
            }
        )

    async def metrics(request: Request) -> Response:
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    def guarded(handler: Any) -> Any:
        async def handle(request: Request) -> Response:
            sent = request.headers.get("Authorization", "")
            if token and not hmac.compare_digest(sent.encode(), f"Bearer {token}".encode()):
                return JSONResponse({"error": "the token is missing or wrong"}, 401)
            return await handler(request)

        return handle

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(service.batcher.close)

    routes = [
        Route("/score", guarded(score), methods=["POST"]),
        Route("/health", health),
        Route("/metrics", guarded(metrics)),
    ]
    return Starlette(routes=routes, lifespan=lifespan)


async def _score(service: Service, request: Request) -> Response:
    try:
        body = await request.json()
        conversations = [
            tuple(Message(turn["role"], str(turn["content"])) for turn in conversation)
            for conversation in body["conversations"]
        ]
        seconds = min(float(body.get("deadline_seconds", 60.0)), LONGEST_DEADLINE)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        return _refusal(400, f"malformed request: {type(error).__name__}: {error}")
    work = asyncio.ensure_future(service.score(conversations, seconds))
    gone = asyncio.ensure_future(_disconnected(request))
    await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
    gone.cancel()
    if not work.done():  # nobody waits any more: what was not begun gives up its place
        work.cancel()
        return _refusal(499, "the client has gone")
    try:
        return JSONResponse({"scores": work.result()})
    except QueueFull as full:
        return _refusal(503, full.what, {"Retry-After": str(math.ceil(full.seconds))})
    except TimeoutError:
        return _refusal(504, f"not scored within {seconds:g} s")
    except RlhfEvalError as error:
        return _refusal(400, str(error))


async def _disconnected(request: Request) -> None:
    while True:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            return


def _refusal(status: int, words: str, headers: dict[str, str] | None = None) -> Response:
    return JSONResponse({"error": words}, status, headers)
