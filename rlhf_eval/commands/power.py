"""`rlhf-eval power`: how many seeds, prompts and reward models an experiment needs."""

from argparse import Namespace
from dataclasses import replace
from typing import Any

from rlhf_eval.commands.show import console, print_json, table

ALPACA_EVAL_PROMPTS = 805
PUBLISHED_PROMPTS = {"alpaca_eval": ALPACA_EVAL_PROMPTS, "arena_hard": 500}
"""Of the sets that a pilot may have judged in part; Arena-Hard v2.0 has 750."""
REWARD_MODELS = 10
PLANNED = ("seed", "prompt", "residual")


def power(options: Namespace) -> int:
    from rlhf_eval.analysis.plan import Costs, plan
    from rlhf_eval.analysis.power import Target

    components, prompts, reward_models, source = _known(options)
    target = Target(
        options.difference, reward_models, options.compare == "pairs", options.power, options.level
    )
    found = plan(components, target, Costs(options.run_cost, options.prompt_cost), prompts)
    if options.json:
        return print_json(found.as_json())
    _print(found, source)
    return 0


def _known(options: Namespace) -> tuple[Any, int, int, str]:
    """Variance components, prompts of the set, number of reward models, and where the first are from."""
    from rlhf_eval.analysis.scores import metric_named
    from rlhf_eval.analysis.variance import PRIOR, completed, pilot_components

    metric = metric_named(options.metric)
    given = {name: value for name in PLANNED if (value := getattr(options, f"{name}_sd")) is not None}
    if options.experiment_folder is None:
        components, prompts, reward_models, source = PRIOR, ALPACA_EVAL_PROMPTS, REWARD_MODELS, "a prior"
    else:
        from rlhf_eval.analysis.experiment import load_runs

        runs = [run for run in load_runs(options.experiment_folder) if not run.untrained]
        components = completed(pilot_components(runs, options.metric))
        prompts = _prompts(runs, metric.evaluation)
        candidates = {run.reward_model for run in runs if not run.control}
        reward_models = max(len(candidates), 2)
        source = f"the pilot {options.experiment_folder}"
    if options.prompts is not None:
        prompts = options.prompts
    if given:
        named = ", ".join(f"--{name}-sd" for name in given)
        source = f"{source}, and {named} as given" if len(given) < len(PLANNED) else "the command line"
        notes = () if len(given) == len(PLANNED) else components.notes
        components = replace(components, **given, notes=notes)
    return components, prompts, options.reward_models or reward_models, source


def _prompts(runs: Any, evaluation: str) -> int:
    """How many prompts the pilot's set has; the published set's where it was cut by a limit."""
    finished = [run for run in runs if run.finished]
    judged = max((len(run.per_prompt[evaluation].prompt_ids) for run in finished), default=0)
    cut = any(getattr(run.config.prompts, evaluation).limit is not None for run in finished)
    return max(judged, PUBLISHED_PROMPTS[evaluation]) if cut else judged


def _print(found: Any, source: str) -> None:
    shown, target = console(), found.target
    known = found.components
    shown.print(
        f"Spread in points, from {source}: between seeds {known.seed:.2f}, over prompts by reward model "
        f"{known.prompt:.1f}, rest {known.residual:.1f}.",
        markup=False,
    )
    shown.print(
        f"Power for {target.difference:g} points between {target.reward_models} reward models "
        f"({_comparisons(target.comparisons)}, {target.level:g} over all):",
        markup=False,
    )
    columns = sorted({design.prompts for design in found.table})
    by_place = {(design.seeds, design.prompts): design for design in found.table}
    rows = [
        [seeds, *(f"{100 * by_place[seeds, p].power:.0f} %" for p in columns), f"{least:.1f}"]
        for seeds, least in found.smallest_difference.items()
    ]
    headers = ["seeds", *(f"{p} prompts" for p in columns), "smallest difference (all prompts)"]
    shown.print(table(headers, rows))
    needs = sorted([found.chosen, *found.others], key=lambda row: row.reward_models)
    headers = ["reward models", "comparisons", "fewest seeds", "cheapest", "cost", "smallest correlation"]
    shown.print(table(headers, [_needs(row) for row in needs]))
    shown.print(f"For a power of {target.power:g}. {' '.join(found.notes)}", markup=False, soft_wrap=True)


def _comparisons(number: int) -> str:
    return "1 comparison" if number == 1 else f"{number} comparisons, Holm"


def _needs(row: Any) -> list[Any]:
    cheapest = row.cheapest
    return [
        row.reward_models,
        row.comparisons,
        "none" if row.seeds is None else row.seeds,
        "none" if cheapest is None else f"{cheapest.seeds} seeds, {cheapest.prompts} prompts",
        None if cheapest is None else f"{cheapest.cost:,.1f}",
        "–" if row.correlation is None else f"{row.correlation:.2f}",
    ]
