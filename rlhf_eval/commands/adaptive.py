"""`rlhf-eval judge`: AlpacaEval's prompts judged batch by batch, until a question is settled."""

import os
from argparse import Namespace
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlhf_eval.commands.show import console, print_json, table
from rlhf_eval.errors import DataError

FILE = "adaptive.json"


@dataclass(frozen=True)
class Policies:
    """Whose answers are judged: the candidates, and the untrained policy last if it is asked about.

    Attributes:
        questions: by name (reward model), one list for each of its runs, in set order.
        left_out: runs whose answers are not there, and where they are.
    """

    judge: Any
    questions: dict[str, list[list[Any]]]
    left_out: dict[str, str]

    @property
    def everything(self) -> list[Any]:
        """All questions that could be asked."""
        return [q for runs in self.questions.values() for run in runs for q in run]


def judge(options: Namespace) -> int:
    from rlhf_eval.analysis.sequential import question_named, standing
    from rlhf_eval.files import write_json
    from rlhf_eval.interruption import listen
    from rlhf_eval.judging.adaptive import asking
    from rlhf_eval.progress import progress_for_terminal

    listen()
    with progress_for_terminal(silent=options.json) as progress:
        policies = _policies(options, progress)
        names = list(policies.questions)
        question = question_named(options.until, len(names))
        order = _order(len(policies.questions[names[0]][0]), options.order_seed)
        judged: dict[str, int] = dict.fromkeys(names, 0)
        shared = options.experiment_folder / "shared" / "verdicts"
        progress.stage("judge", "running")
        with asking(policies.judge, shared, policies.everything) as asker:
            while True:
                values = [
                    _values(policies.questions[name], order[: judged[name]], asker.verdicts) for name in names
                ]
                found = standing(values, len(order), question, options.level)
                report = _report(options, policies, asker, judged, values, found)
                write_json(options.experiment_folder / FILE, report)
                progress.advance(max(judged.values()), len(order))
                if found.settled:
                    break
                active = [name for name, is_active in zip(names, found.active, strict=True) if is_active]
                reached = min(max(judged[name] for name in active) + options.batch, len(order))
                asker.require(
                    [
                        run[place]
                        for name in active
                        for run in policies.questions[name]
                        for place in order[judged[name] : reached]
                    ]
                )
                for name in active:
                    judged[name] = reached
        progress.stage("judge", "done")
    if options.json:
        return print_json(report)
    _print(report)
    return 0


def _policies(options: Namespace, progress: Any) -> Policies:
    """The runs' answers as questions.

    Raises:
        DataError: fewer than two policies have all that is needed, or they must not be compared.
        ConfigError: a configuration is damaged, or an override would change results.
    """
    from rlhf_eval.analysis.experiment import check_comparable
    from rlhf_eval.analysis.run_record import read_runs
    from rlhf_eval.analysis.sequential import question_named
    from rlhf_eval.judging import alpaca_eval
    from rlhf_eval.lab.build import ensure
    from rlhf_eval.runs.stages import open_stages
    from rlhf_eval.sources import localise
    from rlhf_eval.sweep.task import frozen

    folder: Path = options.experiment_folder
    wanted = [run for run in read_runs(folder) if _takes_part(run, options.until)]
    if any(run.config.grid for run in wanted):
        raise DataError(
            f"{folder} has a grid: which point counts is known only when all of its runs are trained.",
            "Have all judged by the runs themselves: rlhf-eval sweep --resume.",
        )
    question_named(options.until, len({run.reward_model for run in wanted}))  # before a world is built
    worlds = {run.config.lab: ensure(run.config.lab, 2, progress) for run in wanted if run.config.lab}
    ready, left_out = [], {}
    for run in wanted:
        if "generate" not in open_stages(frozen(run.path), run.path):
            ready.append(run)
        else:
            left_out[run.path.name] = "its inputs have changed since" if run.finished else run.state
    names = sorted({run.reward_model for run in ready}, key=lambda name: _last(name, ready))
    listed = ", ".join(f"{name} ({state})" for name, state in left_out.items()) or "none"
    if options.until == "untrained" and not any(run.untrained for run in ready):
        raise DataError(
            f"{folder} has no answers of the untrained policy; runs without answers: {listed}.",
            "Run it with reward_model=untrained, --stages train,generate at least.",
        )
    if len(names) < 2:
        raise DataError(
            f"{len(names)} of the policies of {folder} that this is about have their answers, too few to "
            f"compare; runs without: {listed}.",
            "Have answers generated: rlhf-eval run --frozen RUN_DIRECTORY --stages train,generate."
            if left_out
            else "Sweep another reward model into this experiment.",
        )
    check_comparable(ready)
    questions: dict[str, list[list[Any]]] = {name: [] for name in names}
    config = None
    for run in ready:
        own = frozen(run.path, options.overrides)
        os.environ.setdefault("OMP_NUM_THREADS", str(own.threads))
        config = localise(own, worlds[own.lab] if own.lab else None)
        items = alpaca_eval.load(config.prompts.alpaca_eval)
        answers = _answers(run.path, [item.prompt.id for item in items])
        questions[run.reward_model].append(
            alpaca_eval.questions(items, answers, config.prompts.alpaca_eval, config.judge)
        )
    assert config is not None
    return Policies(config.judge, questions, left_out)


def _takes_part(run: Any, until: str) -> bool:
    return until == "untrained" if run.untrained else not run.control


def _last(name: str, runs: Sequence[Any]) -> tuple[bool, str]:
    """Where a name is sorted: the untrained policy stands last."""
    return any(run.untrained for run in runs if run.reward_model == name), name


def _answers(run: Path, prompt_ids: Sequence[str]) -> dict[str, str]:
    from rlhf_eval.files import read_jsonl

    file = run / "stages" / "generate" / "alpaca_eval.jsonl"
    answers = {row["prompt_id"]: row["text"] for row in read_jsonl(file)}
    if missing := [id for id in prompt_ids if id not in answers]:
        raise DataError(
            f"{file} lacks the answers to {len(missing)} of {len(prompt_ids)} prompts.",
            "Delete the run's stages/generate to have them generated again.",
        )
    return answers


def _order(prompts: int, seed: int) -> list[int]:
    """Places in the set, in the random order in which they are judged."""
    import numpy as np

    return np.random.default_rng(seed).permutation(prompts).tolist()


def _values(runs: Sequence[Sequence[Any]], places: Sequence[int], verdicts: Mapping[str, Any]) -> Any:
    """Mean over a policy's seeds on each prompt; NaN where a verdict failed."""
    import numpy as np

    preferences = [[verdicts[run[place].key].preference for place in places] for run in runs]
    return np.array(preferences, dtype=np.float64).mean(axis=0)


def _report(
    options: Namespace, policies: Policies, asker: Any, judged: Mapping[str, int], values: Any, found: Any
) -> dict[str, Any]:
    """What `adaptive.json` holds and `--json` prints."""
    import numpy as np

    from rlhf_eval.judging.cost import estimate

    names = list(policies.questions)
    paid = {q.key: q for q in policies.everything if q.settled is None}
    open_questions = [question for key, question in paid.items() if key not in asker.verdicts]
    saved = estimate(policies.judge, open_questions)
    places = np.argsort(-found.better.sum(axis=1), kind="stable")
    pairs = [(names[a], names[b]) for a, b in zip(*np.nonzero(found.better), strict=True)]
    beaten = defaultdict(list)
    for better, worse in pairs:
        beaten[better].append(worse)
    rows = [
        {
            "reward_model": names[i],
            "n_seeds": len(policies.questions[names[i]]),
            "prompts": judged[names[i]],
            "failed": int(np.isnan(values[i]).sum()),
            "score": None if np.isnan(values[i]).all() else 100 * float(np.nanmean(values[i])),
            "better_than": beaten[names[i]],
        }
        for i in places
    ]
    return {
        "question": options.until,
        "level": options.level,
        "settled": found.settled,
        "first": [name for name, inside in zip(names, found.inside, strict=True) if inside],
        "policies": rows,
        "prompts": len(policies.questions[names[0]][0]),
        "batch": options.batch,
        "order_seed": options.order_seed,
        "judge": policies.judge.name,
        "calls": len(paid) - len(open_questions),
        "calls_now": len(asker.asked),
        "calls_saved": len(open_questions),
        "money_saved": saved.money,
        "left_out": policies.left_out,
    }


def _print(report: dict[str, Any]) -> None:
    shown = console()
    rows = [
        (
            row["reward_model"],
            row["n_seeds"],
            f"{row['prompts']} of {report['prompts']}",
            "–" if row["score"] is None else f"{row['score']:.1f} %",
            ", ".join(row["better_than"]) or "–",
        )
        for row in report["policies"]
    ]
    shown.print(table(("policy", "seeds", "prompts judged", "win rate on them", "better than"), rows))
    for line in in_words(report):
        shown.print(line, markup=False, soft_wrap=True)


def in_words(report: dict[str, Any]) -> list[str]:
    """The outcome, what it holds for, and what it saved."""
    lines = []
    if report["first"]:
        lines.append(f"First of all: {', '.join(report['first'])}.")
    everything = report["calls"] + report["calls_saved"]
    money = "" if report["money_saved"] is None else f", about {report['money_saved']:.2f}"
    share = report["calls_saved"] / everything if everything else 0.0
    if any(row["prompts"] == report["prompts"] for row in report["policies"]):
        lines.append("All prompts are judged: what is not told apart has equal scores on them.")
    lines += [
        f"{report['calls']:,} of {everything:,} comparisons are judged ({report['calls_now']:,} of them "
        f"now); {report['calls_saved']:,} were saved ({share:.0%}{money}).",
        f"With a probability of at most {report['level']:g} the answer to '{report['question']}' is not what "
        f"the judging of all {report['prompts']:,} prompts would say of these policies. Other training seeds "
        "and other prompts are not in it: that is what `rlhf-eval rank` tells.",
    ]
    if any(row["failed"] for row in report["policies"]):
        lines.append("A prompt on which a verdict failed counts as a tie.")
    if report["left_out"]:
        listed = ", ".join(f"{name} ({state})" for name, state in report["left_out"].items())
        lines.append(f"Without answers, so not judged: {listed}.")
    return lines
