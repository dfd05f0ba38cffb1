"""Asking a judge: many calls at once, patient with a busy endpoint, quick to give up on an absent one."""

import asyncio
import ipaddress
import os
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import urlsplit

from rlhf_eval.config.schema import JudgeConfig
from rlhf_eval.errors import JudgeError
from rlhf_eval.judging.question import JudgeAnswer, Question
from rlhf_eval.records import Verdict

OPENAI = "https://api.openai.com/v1"
UNREACHED_LIMIT = 3
"""Calls in a row, each with all its retries, that may fail to connect before a judge that never answered is
given up. One that has answered before is given up after `concurrency` of them."""


def ask(
    judge: JudgeConfig, base_url: str, questions: Sequence[Question], keep: Callable[[Verdict], None]
) -> None:
    """Ask every question, `judge.concurrency` at a time, and hand each verdict to `keep` as it comes.

    Busy and broken answers (408, 409, 429, 5xx, time-out, lost connection) are retried by the `openai`
    package with pauses that grow from half a second to eight, or as long as `Retry-After` says. A call that
    still fails, a refusal, malformed JSON or an unreadable answer becomes a failed verdict with its cause.

    Args:
        base_url: address of the endpoint, ending in `/v1`.

    Raises:
        JudgeError: the key's variable is not set, the judge cannot be reached, or it refuses the key or
            knows no such model. No further question is asked then, and the calls that were under way are
            waited for and kept.
    """
    if questions:
        asyncio.run(_ask_all(judge, base_url, questions, keep))


async def _ask_all(
    judge: JudgeConfig, base_url: str, questions: Sequence[Question], keep: Callable[[Verdict], None]
) -> None:
    import openai

    waiting = iter(questions)
    async with openai.AsyncOpenAI(
        base_url=base_url,
        api_key=_key(judge),
        max_retries=judge.max_retries,
        timeout=judge.timeout_seconds,
        # A proxy meant for the outside world must not stand between a run and its own machine.
        http_client=openai.DefaultAsyncHttpxClient(trust_env=False) if _on_this_machine(base_url) else None,
    ) as client:
        caller = _Caller(client, judge, base_url)
        given_up: list[JudgeError] = []

        async def work() -> None:
            for question in waiting:
                try:
                    verdict = await caller.call(question)
                except JudgeError as error:
                    given_up.append(error)
                else:
                    keep(verdict)
                if given_up:
                    return

        # A worker that gives up does not cancel the others: the calls under way may already be paid for.
        await asyncio.gather(*(work() for _ in range(min(judge.concurrency, len(questions)))))
    if given_up:
        raise given_up[0]


class _Caller:
    """Makes single calls and notices when the judge is not there at all."""

    def __init__(self, client: Any, judge: JudgeConfig, base_url: str) -> None:
        self._client = client
        self._judge = judge
        self._base_url = base_url
        self._unreached_in_a_row = 0
        self._unreached_limit = UNREACHED_LIMIT

    async def call(self, question: Question) -> Verdict:
        """The verdict of one question, failed or not.

        Raises:
            JudgeError: no further call can succeed.
        """
        import openai

        try:
            response = await self._client.chat.completions.create(
                messages=question.messages, **question.parameters
            )
        except openai.APIConnectionError as error:
            return self._unreached(question, error)
        except (openai.AuthenticationError, openai.PermissionDeniedError) as error:
            raise self._refused_key(error) from None
        except openai.NotFoundError as error:
            raise JudgeError(
                f"The judge at {self._base_url} has no model '{self._judge.model}': {_short(error.message)}",
                "Correct judge.model, or judge.base_url (it usually ends in /v1).",
            ) from None
        except openai.APIStatusError as error:
            self._reached()
            return question.failed(f"HTTP {error.status_code}: {_short(error.message)}")
        except (openai.APIError, ValueError) as error:
            self._reached()
            return question.failed(f"malformed response: {_short(error)}")
        self._reached()
        return _verdict(question, response)

    def _reached(self) -> None:
        self._unreached_in_a_row = 0
        self._unreached_limit = max(UNREACHED_LIMIT, self._judge.concurrency)

    def _unreached(self, question: Question, error: Exception) -> Verdict:
        self._unreached_in_a_row += 1
        cause = f"no connection to {self._base_url}: {_short(error.__cause__ or error)}"
        if self._unreached_in_a_row >= self._unreached_limit:
            raise JudgeError(
                f"The judge at {self._base_url} cannot be reached: {_short(error.__cause__ or error)}",
                "Start it or correct judge.base_url, then give the same command again: verdicts are kept.",
            ) from None
        return question.failed(cause)

    def _refused_key(self, error: Any) -> JudgeError:
        variable = self._judge.api_key_variable
        cure = (
            f"Check the key in the environment variable {variable}."
            if variable
            else "Name the environment variable that holds the key in judge.api_key_variable."
        )
        return JudgeError(
            f"The judge at {self._base_url} refuses access ({error.status_code}): {_short(error.message)}",
            cure,
        )


def _verdict(question: Question, response: Any) -> Verdict:
    """Read a response whose parts may be missing: the endpoint is not ours."""
    choices = getattr(response, "choices", None)
    if not choices or choices[0].message is None:
        return question.failed(f"malformed response: {_short(response)}")
    choice = choices[0]
    text = choice.message.content or ""
    refusal = getattr(choice.message, "refusal", None)
    if refusal or choice.finish_reason == "content_filter":
        return question.failed(f"the judge refused: {_short(refusal or 'content filter')}", text)
    if not text:
        return question.failed(f"empty answer (finish reason '{choice.finish_reason}')")
    return question.answered(JudgeAnswer(text, _first_token(choice), str(choice.finish_reason)))


def _first_token(choice: Any) -> dict[str, float] | None:
    content = getattr(choice.logprobs, "content", None)
    likeliest = content[0].top_logprobs if content else None
    return {entry.token: entry.logprob for entry in likeliest} if likeliest else None


def _key(judge: JudgeConfig) -> str:
    if judge.api_key_variable is None:
        return "none"
    key = os.environ.get(judge.api_key_variable, "").strip()
    if not key:
        raise JudgeError(
            f"The environment variable {judge.api_key_variable} (key of judge '{judge.name}') is not set.",
            f"export {judge.api_key_variable}=…",
        )
    return key


def _on_this_machine(base_url: str) -> bool:
    host = urlsplit(base_url).hostname or ""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _short(cause: object) -> str:
    text = " ".join(str(cause).split()) or type(cause).__name__
    return text if len(text) <= 300 else text[:300] + "…"
