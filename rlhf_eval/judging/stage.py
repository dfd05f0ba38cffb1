"""Having a policy's answers judged: every comparison once, by every judge of the run."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from rlhf_eval.config.schema import PromptsConfig, RunConfig
from rlhf_eval.errors import DataError
from rlhf_eval.files import append_jsonl
from rlhf_eval.judging import alpaca_eval, arena_hard, cache, verdicts
from rlhf_eval.judging.client import ask
from rlhf_eval.judging.cost import Spending, estimate, in_words, require_affordable
from rlhf_eval.judging.question import Question
from rlhf_eval.judging.server import serving
from rlhf_eval.records import Prompt, Verdict

Answers = Mapping[str, Mapping[str, str]]
"""Evaluation → prompt id → the policy's answer."""


def evaluation_prompts(prompts: PromptsConfig) -> dict[str, list[Prompt]]:
    """The prompts that a policy has to answer, by evaluation, in set order."""
    return {
        alpaca_eval.NAME: [item.prompt for item in alpaca_eval.load(prompts.alpaca_eval)],
        arena_hard.NAME: [item.prompt for item in arena_hard.load(prompts.arena_hard)],
    }


def judge(
    config: RunConfig,
    answers: Answers,
    folder: Path,
    shared: Path,
    advance: Callable[[int, int], None],
    announce: Callable[[str], None] = lambda text: None,
) -> None:
    """Have every answer compared and write `<evaluation>.jsonl`, one verdict a line in prompt order.

    The verdicts of a second judge go to a folder of its name. What the calls took is a line of `spent.jsonl`
    beside the verdicts, one for each time that the judge was asked.

    Only comparisons without a verdict in `folder` or `shared` are asked, so the same call continues after a
    kill and asks failed ones again, and what another run has asked is not asked twice.

    Args:
        answers: of every prompt of `evaluation_prompts`.
        shared: folder of the verdicts that all runs of the experiment share.
        advance: told how many verdicts there are, and of how many, at the start and after each.
        announce: told before the first call what the calls will take.

    Raises:
        DataError: answers are missing.
        JudgeError: the judge cannot be used, or failed on more than `judge.max_failed_share`.
    """
    by_evaluation = questions_of(config, answers)
    questions = [question for group in by_evaluation.values() for question in group]
    found = verdicts.settled(folder, by_evaluation)
    if missing := {question.key for question in questions} - set(found):
        found |= cache.lookup(shared, missing)
    found |= {q.key: q.verdict(q.settled, "") for q in questions if q.settled is not None}
    found = {question.key: found[question.key] for question in questions if question.key in found}
    open_questions = [question for question in questions if question.key not in found]
    advance(len(found), len(questions))
    if open_questions:
        expected = estimate(config.judge, open_questions)
        announce(f"{config.judge.name}: {in_words(expected)}")
        require_affordable(config.judge, expected)
        with cache.Segment(shared) as segment, serving(config.judge) as base_url:

            def keep(verdict: Verdict) -> None:
                segment.append(verdict)
                found[verdict.key] = verdict
                advance(len(found), len(questions))

            spending = Spending(config.judge)
            folder.mkdir(parents=True, exist_ok=True)
            try:
                ask(spending, base_url, open_questions, keep)
            finally:
                append_jsonl(folder / "spent.jsonl", spending.as_row())
    for evaluation, group in by_evaluation.items():
        verdicts.settle(folder, evaluation, group, found)
    cache.compact(shared)
    for group in by_evaluation.values():
        verdicts.refuse_if_too_many_failed([found[q.key] for q in group], config.judge.max_failed_share)
    for name, second in config.second_judges.items():
        own = replace(config, judge=second, second_judges={})
        judge(own, answers, folder / name, shared, advance, announce)


def questions_of(config: RunConfig, answers: Answers) -> dict[str, list[Question]]:
    """What the judge is asked, by evaluation.

    Raises:
        DataError: answers are missing.
    """
    prompts = config.prompts
    alpaca, arena = alpaca_eval.load(prompts.alpaca_eval), arena_hard.load(prompts.arena_hard)
    _require_answers(alpaca_eval.NAME, [item.prompt for item in alpaca], answers)
    _require_answers(arena_hard.NAME, [item.prompt for item in arena], answers)
    return {
        alpaca_eval.NAME: alpaca_eval.questions(
            alpaca, answers[alpaca_eval.NAME], prompts.alpaca_eval, config.judge
        ),
        arena_hard.NAME: arena_hard.questions(arena, answers[arena_hard.NAME], config.judge),
    }


def _require_answers(evaluation: str, prompts: Sequence[Prompt], answers: Answers) -> None:
    missing = [prompt.id for prompt in prompts if prompt.id not in answers.get(evaluation, {})]
    if missing:
        raise DataError(
            f"{len(missing)} of {len(prompts)} answers to {evaluation} are missing, such as "
            f"{', '.join(missing[:3])}.",
            "Delete the run's stages/generate to have them generated again.",
        )
