"""What the judges of a sweep will be asked, and what that costs, told before anything is submitted."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from rlhf_eval.config.plain import plain
from rlhf_eval.config.schema import BASE, AlpacaEvalConfig, ArenaHardConfig, PromptsConfig, RunConfig
from rlhf_eval.errors import DataError
from rlhf_eval.files import sha256_json
from rlhf_eval.judging import alpaca_eval, arena_hard, stage
from rlhf_eval.judging.cost import Estimate, estimate
from rlhf_eval.sources import HUB, LAB, resolve

HUB_SECONDS = 5.0
"""A hub that has not answered by then is taken to be out of reach."""
_NOTHING = Estimate(calls=0, input_tokens=0, output_tokens=0, money=0.0, longest=0)


@dataclass(frozen=True, slots=True)
class Forecast:
    """What the judges of some runs are asked.

    Attributes:
        runs: how many runs this is about.
        judges: what each judge is asked in all runs together, by its name, second judges included; judges of
            one name are added up. `calls` is a bound, one per question without the retries of failed calls;
            tokens and money are about what so many calls take.
        unknown: why calls of some runs could not be counted, and of how many runs; they are in no sum.
    """

    runs: int
    judges: dict[str, Estimate]
    unknown: dict[str, int]

    @property
    def calls(self) -> int:
        """Calls to all judges, as far as they could be counted."""
        return sum(expected.calls for expected in self.judges.values())

    @property
    def unpriced(self) -> list[str]:
        """Names of the judges whose `input_price` or `output_price` is not given."""
        return [name for name, expected in self.judges.items() if expected.money is None]

    @property
    def money(self) -> float | None:
        """What all judges take, in the currency of their prices; None where a price or a count is missing."""
        if self.unknown:
            return None
        amounts = [expected.money for expected in self.judges.values()]
        known = [amount for amount in amounts if amount is not None]
        return sum(known) if len(known) == len(amounts) else None


def forecasts(configs: Sequence[RunConfig]) -> Forecast:
    """What the judges of some runs are asked at most.

    Every prompt is taken to be answered in the length of the answer that it is compared to. An upper bound:
    each run's policy is counted with answers of its own, though runs of an experiment share the verdicts on
    equal texts, equal answers need no judge, and verdicts that are already there are not asked again.

    The evaluation sets are read once for all runs that agree in them and in their judges. Files of the hub
    are downloaded; where a file cannot be had here (hub not reachable, no such file, a `lab:` source that is
    not localised because its world is not built), the calls that depend on it are unknown.

    Raises:
        DataError: a file that is here is broken.
        ConfigError: an annotator that does not exist or cannot be put to a judge.
    """
    places = _Places()
    judges: dict[str, Estimate] = {}
    unknown: Counter[str] = Counter()
    for config, runs in _distinct(configs):
        causes: set[str] = set()
        for judge in (config.judge, *config.second_judges.values()):
            try:
                one = _one_judge(replace(config, judge=judge, second_judges={}), places)
                judges[judge.name] = _plus(judges.get(judge.name, _NOTHING), one, runs)
            except _NotHere as cause:
                causes.add(str(cause))
        unknown.update(dict.fromkeys(causes, runs))
    return Forecast(len(configs), judges, dict(unknown))


def in_words(told: Forecast) -> list[str]:
    """Lines for a terminal: one per judge, their sum where there are several, and what is not known."""
    lines = [
        f"judge: {name}: at most {expected.calls:,} calls, about {expected.input_tokens:,} tokens in and "
        f"{expected.output_tokens:,} out{_money(expected.money)}"
        for name, expected in told.judges.items()
    ]
    if len(told.judges) > 1:
        lines.append(f"judge: all together: at most {told.calls:,} calls{_money(told.money)}")
    if told.unpriced:
        lines.append(f"judge: money unknown: no input_price and output_price for {', '.join(told.unpriced)}")
    for cause, runs in told.unknown.items():
        lines.append(f"judge: calls of {runs:,} of {told.runs:,} runs unknown: {cause}")
    return lines


class _NotHere(Exception):
    """A file that a forecast needs cannot be had on this machine; the message says why."""


class _Places:
    """Local files behind sources, each looked for once."""

    def __init__(self) -> None:
        self._known: dict[str, str | _NotHere] = {}

    def local(self, source: str) -> str:
        """The path of the local file. Raises _NotHere."""
        if source not in self._known:
            self._known[source] = self._look(source)
        place = self._known[source]
        if isinstance(place, _NotHere):
            raise place
        return place

    def _look(self, source: str) -> str | _NotHere:
        if source.startswith(LAB):
            return _NotHere(f"The lab's world with '{source}' is not built yet.")
        if source == BASE:
            return _NotHere("The policy base's answers are not made yet.")
        if source.startswith(HUB) and not self._hub_answers:
            return _NotHere(
                "The Hugging Face hub cannot be reached from here. Set HF_HUB_OFFLINE=1 to take its files "
                "from the cache, or give local copies."
            )
        try:
            return str(resolve(source))
        except DataError as error:
            return _NotHere(" ".join(str(error).split()))

    @cached_property
    def _hub_answers(self) -> bool:
        """Whether to ask the hub for files: its client takes half a minute per file to give up."""
        import httpx
        from huggingface_hub import constants, get_session, is_offline_mode

        if is_offline_mode():  # then the client looks into its cache alone
            return True
        try:
            get_session().head(constants.ENDPOINT, timeout=HUB_SECONDS, follow_redirects=False)
        except httpx.HTTPError:
            return False
        return True


def _distinct(configs: Sequence[RunConfig]) -> list[tuple[RunConfig, int]]:
    """One of each group of runs that ask the same judges about the same sets, and how many they are.

    Prices count here, though they do not change a run's results.
    """
    groups: dict[str, list[RunConfig]] = {}
    for config in configs:
        prompts = config.prompts
        asked = [prompts.alpaca_eval, prompts.arena_hard, config.judge, config.second_judges]
        groups.setdefault(sha256_json(plain(asked)), []).append(config)
    return [(group[0], len(group)) for group in groups.values()]


def _one_judge(config: RunConfig, places: _Places) -> Estimate:
    """What the judge of one run is asked; second judges are not looked at. Raises _NotHere."""
    prompts, answers = _stand_in(config.prompts, places)
    template = config.judge.arena_hard_prompt
    judge = replace(config.judge, arena_hard_prompt=places.local(template) if template else None)
    by_evaluation = stage.questions_of(replace(config, prompts=prompts, judge=judge), answers)
    asked = [question for group in by_evaluation.values() for question in group if question.settled is None]
    return estimate(judge, asked)


def _stand_in(prompts: PromptsConfig, places: _Places) -> tuple[PromptsConfig, stage.Answers]:
    """The evaluation sets as local files, with answers like those that a policy's are compared to.

    An answer equal to its reference would be a tie without a judge, so each stand-in differs by a space.
    Raises _NotHere.
    """
    try:
        alpaca = _local_alpaca_eval(prompts.alpaca_eval, places)
        references = {item.prompt.id: item.reference + " " for item in alpaca_eval.load(alpaca)}
    except _NotHere:
        # A broken file of the other set is told of all the same.
        arena_hard.load(_local_arena_hard(prompts.arena_hard, places))
        raise
    arena = _local_arena_hard(prompts.arena_hard, places)
    baselines = {item.prompt.id: item.baseline_answer + " " for item in arena_hard.load(arena)}
    local = replace(prompts, alpaca_eval=alpaca, arena_hard=arena)
    return local, {alpaca_eval.NAME: references, arena_hard.NAME: baselines}


def _local_alpaca_eval(config: AlpacaEvalConfig, places: _Places) -> AlpacaEvalConfig:
    return replace(
        config,
        reference_outputs=places.local(config.reference_outputs),
        difficulty=places.local(config.difficulty) if config.difficulty else None,
    )


def _local_arena_hard(config: ArenaHardConfig, places: _Places) -> ArenaHardConfig:
    own = {category: places.local(source) for category, source in config.category_baseline_answers.items()}
    return replace(
        config,
        questions=places.local(config.questions),
        baseline_answers=places.local(config.baseline_answers),
        category_baseline_answers=own,
    )


def _plus(total: Estimate, one: Estimate, times: int) -> Estimate:
    """A sum to which `one` is added so many times; its money is unknown once a part's is."""
    return Estimate(
        calls=total.calls + times * one.calls,
        input_tokens=total.input_tokens + times * one.input_tokens,
        output_tokens=total.output_tokens + times * one.output_tokens,
        money=None if total.money is None or one.money is None else total.money + times * one.money,
        longest=max(total.longest, one.longest),
    )


def _money(amount: float | None) -> str:
    return "" if amount is None else f", {amount:,.2f}"
