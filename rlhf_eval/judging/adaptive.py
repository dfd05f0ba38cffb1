"""Judging in parts: some questions of any run of an experiment now, perhaps others later, by one judge."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from rlhf_eval.config.schema import JudgeConfig
from rlhf_eval.judging import cache, verdicts
from rlhf_eval.judging.client import ask
from rlhf_eval.judging.cost import Spending, estimate, require_affordable
from rlhf_eval.judging.question import Question
from rlhf_eval.judging.server import serving
from rlhf_eval.records import Verdict


class Asker:
    """What the judge is asked in parts, and what is known. Make one with `asking`.

    Attributes:
        verdicts: by key: those of the store that hold a preference, those that need no judge, and those of
            this process.
        asked: the questions that this process put to the judge.
    """

    def __init__(self, judge: JudgeConfig, shared: Path, known: dict[str, Verdict], held: ExitStack) -> None:
        self.judge = judge
        self.verdicts = known
        self.asked: list[Question] = []
        self._shared = shared
        self._held = held
        self._wanted: dict[str, None] = {}
        self._address: str | None = None

    def require(self, questions: Sequence[Question]) -> None:
        """Have these questions answered: the judge is asked those without a verdict, each text once.

        Its server, if it has one of its own, is started at the first such question and runs until the end.

        Raises:
            JudgeError: the judge cannot be used, all that was asked would exceed `judge.budget`, or more than
                `judge.max_failed_share` of all that was ever required has failed.
        """
        self._wanted |= dict.fromkeys(question.key for question in questions)
        unknown = {q.key: q for q in questions if q.key not in self.verdicts}
        if unknown:
            open_questions = list(unknown.values())
            require_affordable(self.judge, estimate(self.judge, [*self.asked, *open_questions]))
            if self._address is None:
                self._segment = self._held.enter_context(cache.Segment(self._shared))
                self._address = self._held.enter_context(serving(self.judge))
            ask(Spending(self.judge), self._address, open_questions, self._keep)
            self.asked += open_questions
        verdicts.refuse_if_too_many_failed(
            [self.verdicts[key] for key in self._wanted], self.judge.max_failed_share
        )

    def _keep(self, verdict: Verdict) -> None:
        self._segment.append(verdict)
        self.verdicts[verdict.key] = verdict


@contextmanager
def asking(judge: JudgeConfig, shared: Path, questions: Sequence[Question]) -> Iterator[Asker]:
    """An `Asker` for the length of the block.

    Args:
        shared: folder of the verdicts that all runs of the experiment share: what stands there is not asked
            again, and what is asked stands there for the runs' own judging.
        questions: all that may be required.
    """
    known = {q.key: q.verdict(q.settled, "") for q in questions if q.settled is not None}
    known |= cache.lookup(shared, {question.key for question in questions} - set(known))
    with ExitStack() as held:
        yield Asker(judge, shared, known, held)
    cache.compact(shared)
