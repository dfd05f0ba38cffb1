"""Sampling from a server with the completions endpoint of the OpenAI API, given token ids.

vLLM's server and SGLang's take prompts as token ids and `stop_token_ids` and `top_k` beside the API's own
parameters. Chat endpoints would render the prompt with the server's template, and text prompts may get a
second beginning-of-sequence token.
"""

import asyncio
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from rlhf_eval.addresses import on_this_machine
from rlhf_eval.errors import ConfigError, StageError
from rlhf_eval.generation.engines import Job, Keep, Request
from rlhf_eval.generation.policy import completion, published_stop_tokens
from rlhf_eval.generation.vllm_engine import sampling, vllm_options
from rlhf_eval.generation.worker_process import started
from rlhf_eval.keys import key_in, without_secrets
from rlhf_eval.records import Completion

SERVED = "policy"
"""Name of the policy on a server that we start."""
RETRIES = 3
"""Of a call that met a busy server (429, 5xx) or a lost connection, with pauses that the `openai` package
makes longer each time."""
KEPT = "Then give the same command again: answers given before are kept."


@dataclass(frozen=True)
class OpenAIEngine:
    """Every prompt is one call with a seed of its own."""

    job: Job
    base_url: str
    model: str
    parameters: dict[str, Any]

    def answer(self, requests: Sequence[Request], done: Collection[str], keep: Keep) -> None:
        """Ask for all open prompts, `concurrency` at a time, and hand on each answer as it comes.

        Raises:
            StageError: the server cannot be reached or refuses; no further call is made then.
        """
        missing = [request for request in requests if request.prompt_id not in done]
        asyncio.run(self._answer(missing, keep))

    def check(self) -> None:
        """Ask the server whether it has the model and reads texts that are long enough, where it tells.

        Raises:
            StageError: it has not or does not, or cannot be reached.
        """
        asyncio.run(self._check())

    async def _answer(self, requests: Sequence[Request], keep: Keep) -> None:
        waiting = iter(requests)
        async with _client(self.job, self.base_url) as client:

            async def work() -> None:
                for request in waiting:
                    keep([await self._call(client, request)])

            workers = (work() for _ in range(min(self.job.config.concurrency, len(requests))))
            with self._said_plainly():
                await asyncio.gather(*workers)

    async def _call(self, client: Any, request: Request) -> Completion:
        extra = {"top_k": self.parameters["top_k"], "stop_token_ids": self.parameters["stop_token_ids"]}
        response = await client.completions.create(
            model=self.model,
            prompt=request.tokens,
            max_tokens=self.parameters["max_tokens"],
            temperature=self.parameters["temperature"],
            top_p=self.parameters["top_p"],
            seed=request.seed,
            # Off, whatever the model's generation config asks for; and the tokens, where they can be had.
            extra_body=extra | {"repetition_penalty": 1.0, "min_p": 0.0, "return_token_ids": True},
        )
        choice = response.choices[0]
        if tokens := getattr(choice, "token_ids", None):
            return completion(request.prompt_id, tokens, extra["stop_token_ids"], self.job.tokenizer)
        finish = "length" if choice.finish_reason == "length" else "stop"
        return Completion(request.prompt_id, choice.text.strip(), response.usage.completion_tokens, finish)

    async def _check(self) -> None:
        async with _client(self.job, self.base_url) as client:
            with self._said_plainly():
                cards = {card.id: card for card in (await client.models.list()).data}
        if self.model not in cards:
            raise StageError(
                f"The server at {self.base_url} has no model '{self.model}'; it has: {', '.join(cards)}.",
                f"Start it with the policy's folder, or name the policy in generation.served_model. {KEPT}",
            )
        longest = getattr(cards[self.model], "max_model_len", None)
        if longest is not None and longest < self.job.context:
            raise StageError(
                f"The server at {self.base_url} reads at most {longest} tokens; the longest prompt and the "
                f"longest answer have {self.job.context}.",
                f"Start it with --max-model-len {self.job.context}, or lower generation.max_tokens. {KEPT}",
            )

    @property
    def _where_to_look(self) -> str:
        ours = self.job.config.base_url is None
        return (
            f"What it printed is in {self.job.log}." if ours else "Start it or correct generation.base_url."
        )

    @contextmanager
    def _said_plainly(self) -> Iterator[None]:
        """Turns the errors of the `openai` package into a StageError."""
        import openai

        try:
            yield
        except openai.APIConnectionError as error:
            raise StageError(
                f"The server at {self.base_url} cannot be reached: {error.__cause__ or error}.",
                f"{self._where_to_look} {KEPT}",
            ) from None
        except openai.APIStatusError as error:
            message = without_secrets(" ".join(error.message.split()))[:300]
            raise StageError(
                f"The server at {self.base_url} refuses a call ({error.status_code}): {message}",
                "Check generation.base_url (it usually ends in /v1), .served_model and .api_key_variable. "
                + KEPT,
            ) from None


@contextmanager
def open_engine(job: Job) -> Iterator[OpenAIEngine]:
    """The engine, checked; with vLLM's server running for the length of the block if no address is given.

    Raises:
        ConfigError: the key's variable is not set, or `generation.python` has no vLLM.
        StageError: the server could not load the policy, or is not what is needed.
    """
    stops = published_stop_tokens(job.policy, job.parts, job.tokenizer)
    with _server(job) as (base_url, model):
        engine = OpenAIEngine(job, base_url, model, sampling(job, stops))
        engine.check()
        yield engine


@contextmanager
def _server(job: Job) -> Iterator[tuple[str, str]]:
    """Address of a server and the policy's name on it."""
    if job.config.base_url is not None:
        yield job.config.base_url, job.config.served_model or job.policy.model
        return
    options = vllm_options(job)
    names = ["--served-model-name", SERVED]
    if job.parts.adapter is not None:
        names = ["--served-model-name", "base", "--lora-modules", f"{SERVED}={job.parts.adapter}"]
    words = [word for name, value in options.items() for word in _option(name, value)]
    arguments = [*words, *names, "--disable-uvicorn-access-log"]
    with started(job.config.python, "vllm_server.py", arguments, job.log) as server:
        yield server.hear(), SERVED


def _option(name: str, value: Any) -> list[str]:
    """One option of vLLM's command line; one that is False is left out."""
    flag = f"--{name.replace('_', '-')}"
    if isinstance(value, bool):
        return [flag] if value else []
    return [flag, str(value)]


def _client(job: Job, base_url: str) -> Any:
    import openai

    return openai.AsyncOpenAI(
        base_url=base_url,
        api_key=_key(job),
        max_retries=RETRIES,
        timeout=job.config.timeout_seconds,
        http_client=openai.DefaultAsyncHttpxClient(
            # A proxy meant for the outside world must not stand between a run and its own machine.
            trust_env=not on_this_machine(base_url),
            # Key and prompts go to the address that the configuration names, and to no other.
            follow_redirects=False,
            limits=_limits(job.config.concurrency),
        ),
    )


def _limits(concurrency: int) -> Any:
    import httpx

    return httpx.Limits(max_connections=concurrency)


def _key(job: Job) -> str:
    variable = job.config.api_key_variable
    if variable is None:
        return "none"
    key = key_in(variable)
    if not key:
        raise ConfigError(
            f"The environment variable {variable} (generation.api_key_variable) is not set.",
            f"export {variable}=…",
        )
    return key
