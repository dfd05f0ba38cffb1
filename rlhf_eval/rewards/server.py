"""A reward model behind HTTP, for many training jobs at once.

    POST /score     {"conversations": [[{"role", "content"}, …], …], "deadline_seconds": 60}
                    → {"scores": [number or null, …]}: null is an invalid score
    POST /compare   {"comparisons": [{"prompt": [{"role", "content"}, …], "completion_a", "completion_b"}, …],
                    "deadline_seconds": 60} → {"probabilities": [P(a ≻ b) or null, …]}
    GET  /health    {"status": "ok", "reward_model": name, "waiting_tokens": number}
    GET  /metrics   Prometheus text

A reward model that only compares answers `/compare`, any other `/score`. A request that is malformed or asks
for the other is refused (400), one that would overfill the queue is told when to come again
(503, Retry-After), and one that was not answered by its deadline gives up its place (504).
"""

import asyncio
import hmac
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from rlhf_eval.errors import DataError, RlhfEvalError
from rlhf_eval.records import Comparison, Conversation, Prompt, as_messages
from rlhf_eval.rewards.batcher import Batcher, QueueFull
from rlhf_eval.rewards.interface import RewardModel
from rlhf_eval.rewards.local import LocalRewardModel
from rlhf_eval.rewards.rendering import check

BATCHES_WAITING = 64
"""How many full batches may wait before clients are sent away."""
LONGEST_DEADLINE = 1800.0
CHARACTERS_PER_TOKEN = 4

Handler = Callable[[Request], Awaitable[Response]]
Read = Callable[[Any], Sequence[Any]]
"""Body of a request → what it asks about."""
Work = Callable[[Sequence[Any], float], Awaitable[list[float | None]]]
"""(what is asked about, seconds until the deadline) → numbers; None where invalid."""


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
        if self.reward_model.only_compares:
            raise DataError(f"'{self.name}' compares two answers.", "POST /compare instead of /score.")
        check(conversations)
        keys: list[Hashable]
        if self.local:
            # Tokenising in a thread keeps the server answering; tokenizers release the interpreter's lock.
            keys = list(await asyncio.to_thread(self.local.render, conversations))
            sizes = [len(ids) if ids else 0 for ids in keys]  # type: ignore[arg-type]
        else:
            keys = list(conversations)
            sizes = [_tokens(c) for c in conversations]
        return await self._answers(keys, sizes, seconds)

    async def compare(self, comparisons: Sequence[Comparison], seconds: float) -> list[float | None]:
        """P(a ≻ b) by the deadline; raises as `score`."""
        if not self.reward_model.only_compares:
            raise DataError(f"'{self.name}' scores single answers.", "POST /score instead of /compare.")
        check([c.prompt.answered(c.completion_a) for c in comparisons])
        sizes = [_tokens(c.prompt.answered(c.completion_a + c.completion_b)) for c in comparisons]
        return await self._answers(list(comparisons), sizes, seconds)

    async def _answers(
        self, keys: Sequence[Hashable], sizes: Sequence[int], seconds: float
    ) -> list[float | None]:
        asked = [place for place, key in enumerate(keys) if key]
        futures = self.batcher.submit([keys[place] for place in asked], [sizes[place] for place in asked])
        try:
            found = await asyncio.wait_for(
                asyncio.gather(*(asyncio.wrap_future(future) for future in futures)), seconds
            )
        finally:
            for future in futures:
                future.cancel()
        values: list[float | None] = [None] * len(keys)
        for place, value in zip(asked, found, strict=True):
            values[place] = value
        return values

    def _work(self, keys: Sequence[Any]) -> list[float | None]:
        if self.reward_model.only_compares:
            values = self.reward_model.compare(keys).probabilities
        else:
            batch = self.local.score_tokens(keys) if self.local else self.reward_model.score(keys)
            values = batch.scores
        return [float(value) if math.isfinite(value) else None for value in values]


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

    def counted(read: Read, work: Work, field: str) -> Handler:
        async def handle(request: Request) -> Response:
            response = await _answer(request, read, work, field)
            answered.labels(status=str(response.status_code)).inc()
            return response

        return handle

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

    def guarded(handler: Handler) -> Handler:
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
        Route("/score", guarded(counted(_conversations, service.score, "scores")), methods=["POST"]),
        Route("/compare", guarded(counted(_comparisons, service.compare, "probabilities")), methods=["POST"]),
        Route("/health", health),
        Route("/metrics", guarded(metrics)),
    ]
    return Starlette(routes=routes, lifespan=lifespan)


def _conversations(body: Any) -> list[Conversation]:
    return [as_messages(conversation) for conversation in body["conversations"]]


def _comparisons(body: Any) -> list[Comparison]:
    return [
        Comparison(Prompt("", as_messages(c["prompt"])), str(c["completion_a"]), str(c["completion_b"]))
        for c in body["comparisons"]
    ]


def _tokens(conversation: Conversation) -> int:
    """About how many it has, for reward models whose tokenizer is not here."""
    return 1 + sum(len(message.content) for message in conversation) // CHARACTERS_PER_TOKEN


async def _answer(request: Request, read: Read, work: Work, field: str) -> Response:
    try:
        body = await request.json()
        items = read(body)
        seconds = min(float(body.get("deadline_seconds", 60.0)), LONGEST_DEADLINE)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        return _refusal(400, f"malformed request: {type(error).__name__}: {error}")
    answer = asyncio.ensure_future(work(items, seconds))
    gone = asyncio.ensure_future(_disconnected(request))
    await asyncio.wait({answer, gone}, return_when=asyncio.FIRST_COMPLETED)
    gone.cancel()
    if not answer.done():  # nobody waits any more: what was not begun gives up its place
        answer.cancel()
        return _refusal(499, "the client has gone")
    try:
        return JSONResponse({field: answer.result()})
    except QueueFull as full:
        return _refusal(503, full.what, {"Retry-After": str(math.ceil(full.seconds))})
    except TimeoutError:
        return _refusal(504, f"not answered within {seconds:g} s")
    except RlhfEvalError as error:
        return _refusal(400, str(error))


async def _disconnected(request: Request) -> None:
    while True:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            return


def _refusal(status: int, words: str, headers: dict[str, str] | None = None) -> Response:
    return JSONResponse({"error": words}, status, headers)
