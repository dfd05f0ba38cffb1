"""Asking a judge: many calls at once, patient with a busy endpoint, quick to give up on an absent one."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

from rlhf_eval.addresses import on_this_machine
from rlhf_eval.config.schema import JudgeConfig
from rlhf_eval.errors import JudgeError
from rlhf_eval.judging.cost import Spending
from rlhf_eval.judging.pacing import Pace, pause
from rlhf_eval.judging.question import JudgeAnswer, Question
from rlhf_eval.keys import key_in, without_secrets
from rlhf_eval.records import Verdict

OPENAI = "https://api.openai.com/v1"
UNREACHED_LIMIT = 3
"""Calls in a row, each with all its retries, that may fail to connect before a judge that never answered is
given up. One that has answered before is given up after `concurrency` of them."""


def ask(
    spending: Spending, base_url: str, questions: Sequence[Question], keep: Callable[[Verdict], None]
) -> None:
    """Ask a judge every question, up to `judge.concurrency` at a time, and hand each verdict to `keep` as it
    comes.

    The first question is asked alone: what it shows of the judge (no such model, no access, no
    log-probabilities) is known before anything else is paid for. Busy and broken answers (408, 409, 429,
    5xx, time-out, lost connection) are retried with growing pauses, or as long as `Retry-After` says, and
    slow down all others (see `pacing`). A call that still fails, a refusal, malformed JSON or an unreadable
    answer becomes a failed verdict with its cause.

    Args:
        spending: of the judge that is asked; counts what the calls take.
        base_url: address of the endpoint, ending in `/v1`.

    Raises:
        JudgeError: the key's variable is not set, the judge cannot be reached, it refuses the key, knows no
            such model or gives no log-probabilities, or the budget is used up. No further question is asked
            then, and the calls that were under way are waited for and kept.
    """
    if questions:
        asyncio.run(_ask_all(spending, base_url, questions, keep))


async def _ask_all(
    spending: Spending, base_url: str, questions: Sequence[Question], keep: Callable[[Verdict], None]
) -> None:
    import openai

    judge = spending.judge
    waiting = iter(questions)
    async with openai.AsyncOpenAI(
        base_url=base_url,
        api_key=_key(judge),
        max_retries=0,
        timeout=judge.timeout_seconds,
        http_client=openai.DefaultAioHttpClient(
            # A proxy meant for the outside world must not stand between a run and its own machine.
            trust_env=not on_this_machine(base_url),
            # Key and texts go to the address that the configuration names, and to no other.
            follow_redirects=False,
        ),
    ) as client:
        caller = _Caller(client, spending, base_url)

        async def work(most: int) -> None:
            for question in islice(waiting, most):
                try:
                    verdict = await caller.call(question)
                except JudgeError as error:
                    caller.given_up = caller.given_up or error
                else:
                    keep(verdict)
                if caller.given_up:
                    return

        await work(1)
        if not caller.given_up:
            # A worker that gives up does not cancel the others: the calls under way may already be paid for.
            everything = len(questions)
            await asyncio.gather(*(work(everything) for _ in range(min(judge.concurrency, everything))))
    if caller.given_up:
        raise caller.given_up


class _Caller:
    """Makes single calls and notices when the judge is not there at all.

    Attributes:
        given_up: why no further call is made; None as long as they are.
    """

    def __init__(self, client: Any, spending: Spending, base_url: str) -> None:
        self._client = client
        self._judge = judge = spending.judge
        self._base_url = base_url
        self._pace = Pace(judge.concurrency)
        self._spending = spending
        self.given_up: JudgeError | None = None
        self._first = True
        self._unreached_in_a_row = 0
        self._unreached_limit = UNREACHED_LIMIT

    async def call(self, question: Question) -> Verdict:
        """The verdict of one question, failed or not.

        Raises:
            JudgeError: no further call can succeed.
        """
        import openai

        for attempt in range(self._judge.max_retries + 1):
            self._spending.require_left()
            last = attempt == self._judge.max_retries
            async with self._pace as began:
                if self.given_up:
                    raise self.given_up
                try:
                    # Plain JSON: the package's own models cost as much time as all else a call takes here.
                    response = await self._client.post(
                        "/chat/completions",
                        body={"messages": question.messages, **question.parameters},
                        cast_to=object,
                    )
                except openai.APIConnectionError as error:
                    self._pace.trouble(began, None)
                    if last:
                        return self._unreached(question, error)
                except (openai.AuthenticationError, openai.PermissionDeniedError) as error:
                    raise self._refused_key(error) from None
                except openai.NotFoundError as error:
                    raise self._unknown_model(error) from None
                except openai.APIStatusError as error:
                    if error.status_code < 400:
                        raise self._moved(error) from None
                    if last or not _is_passing(error.status_code):
                        self._reached()
                        return question.failed(f"HTTP {error.status_code}: {_short(error.message)}")
                    self._pace.trouble(began, _retry_after(error))
                except (openai.APIError, ValueError) as error:
                    self._reached()
                    return question.failed(f"malformed response: {_short(error)}")
                else:
                    self._reached()
                    self._pace.good()
                    self._spending.add(response)
                    if not self._surprises(question, response, attempt):
                        return replace(_verdict(question, response), answered_by=_answered_by(response))
            await asyncio.sleep(pause(attempt))
        raise AssertionError("the last attempt returns or raises")

    def _surprises(self, question: Question, response: Any, attempt: int) -> bool:
        """Whether the very first answer lacks the log-probabilities that were asked for.

        Raises:
            JudgeError: the second answer to it lacks them too: this judge gives none.
        """
        first, self._first = self._first, False
        if not (first and question.parameters.get("logprobs") and _lacks_log_probabilities(response)):
            return False
        if attempt > 0:
            raise JudgeError(
                f"{question.evaluation} reads log-probabilities; the judge at {self._base_url} gives none.",
                "Choose a judge that gives them, or prompts.alpaca_eval.annotator=alpaca_eval_gpt4 (text).",
            )
        self._first = True
        return True

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

    def _moved(self, error: Any) -> JudgeError:
        place = error.response.headers.get("Location", "another address")
        return JudgeError(
            f"The judge at {self._base_url} sends its clients on to {_short(place)}.",
            "Set judge.base_url to that address if it is to have the key and the answers.",
        )

    def _unknown_model(self, error: Any) -> JudgeError:
        return JudgeError(
            f"The judge at {self._base_url} has no model '{self._judge.model}': {_short(error.message)}",
            "Correct judge.model, or judge.base_url (it usually ends in /v1).",
        )


def _is_passing(status: int) -> bool:
    """Whether the same call may succeed later."""
    return status in (408, 409, 429) or status >= 500


def _retry_after(error: Any) -> float | None:
    try:
        return float(error.response.headers.get("Retry-After", ""))
    except ValueError:
        return None


def _lacks_log_probabilities(response: Any) -> bool:
    choice = _choice(response)
    return choice is not None and _first_token(choice) is None


def _verdict(question: Question, response: Any) -> Verdict:
    """Read a response whose parts may be missing: the endpoint is not ours."""
    choice = _choice(response)
    if choice is None:
        return question.failed(f"malformed response: {_short(response)}")
    text = choice["message"].get("content") or ""
    finish = choice.get("finish_reason")
    refusal = choice["message"].get("refusal")
    if refusal or finish == "content_filter":
        return question.failed(f"the judge refused: {_short(refusal or 'content filter')}", text)
    if not text:
        return question.failed(f"empty answer (finish reason '{finish}')")
    return question.answered(JudgeAnswer(text, _first_token(choice), str(finish)))


def _answered_by(response: Any) -> str | None:
    """The model that the endpoint says it is."""
    name = response.get("model") if isinstance(response, dict) else None
    return name if isinstance(name, str) else None


def _choice(response: Any) -> dict[str, Any] | None:
    """The first choice if it has a message, else None."""
    try:
        choice = response["choices"][0]
        return choice if isinstance(choice["message"], dict) else None
    except (TypeError, KeyError, IndexError):
        return None


def _first_token(choice: dict[str, Any]) -> dict[str, float] | None:
    """Log-probabilities of the likeliest first tokens; None if they are not given."""
    try:
        likeliest = choice["logprobs"]["content"][0]["top_logprobs"]
        return {entry["token"]: float(entry["logprob"]) for entry in likeliest} or None
    except (TypeError, KeyError, IndexError, ValueError):
        return None


def _key(judge: JudgeConfig) -> str:
    if judge.api_key_variable is None:
        return "none"
    key = key_in(judge.api_key_variable)
    if not key:
        raise JudgeError(
            f"The environment variable {judge.api_key_variable} (key of judge '{judge.name}') is not set.",
            f"export {judge.api_key_variable}=…",
        )
    return key


def _short(cause: object) -> str:
    text = without_secrets(" ".join(str(cause).split())) or type(cause).__name__
    return text if len(text) <= 300 else text[:300] + "…"
