"""The annotators of the `alpaca-eval` package: what a judge is asked, and how its answer is read.

Prompts and settings belong to the package and are read from its files at run time, without importing it
(that takes seconds and needs `pkg_resources`). An annotator's prompt may be put to any judge: the
repository's `weighted_alpaca_eval_gpt4.1` is `weighted_alpaca_eval_gpt4_turbo` asked of gpt-4.1.
"""

import ast
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rlhf_eval.errors import ConfigError, did_you_mean
from rlhf_eval.judging.question import JudgeAnswer, UnreadableAnswer

FIRST, SECOND = "m", "M"
"""The names under which most annotators show the first and the second answer."""
_FIELDS = ("{instruction}", "{output_1}", "{output_2}")
_SHARE = {1: 1.0, 2: 0.0}
"""The package's number of the better answer, as how much the first is preferred."""


@dataclass(frozen=True)
class Annotator:
    """One way to ask which of two answers is better.

    Attributes:
        model: the model that the package puts the prompt to: the judge of the numbers published with it.
        messages: (role, content template) pairs with `{instruction}`, `{output_1}`, `{output_2}`.
        switches: whether a coin per instruction decides which answer is shown first.
        parameters: sampling parameters that the reading needs; they go before the judge's own.
        first_share: how much an answer prefers the output shown first, in [0, 1]; raises `UnreadableAnswer`.
    """

    name: str
    model: str
    messages: tuple[tuple[str, str], ...]
    switches: bool
    parameters: dict[str, Any]
    first_share: Callable[[JudgeAnswer], float]


@cache
def load(name: str) -> Annotator:
    """An annotator of the package by name.

    Raises:
        ConfigError: the package is not installed, there is no such annotator, or it cannot be put to a chat
            endpoint one comparison at a time (several comparisons in one prompt, a pool of annotators,
            function calls, log-probabilities after an explanation, a prompt for another kind of API).
    """
    settings = _settings(name)
    completion = settings.get("completions_kwargs") or {}
    template = package_file("evaluators_configs", settings["prompt_template"]).read_text(encoding="utf-8")
    turns = re.findall(r"<\|im_start\|>(\w+)\n(.*?)<\|im_end\|>", template, flags=re.DOTALL)
    if not turns:
        raise _unusable(name, "its prompt is not written for a chat")
    if settings.get("batch_size", 1) != 1 or any(template.count(field) != 1 for field in _FIELDS):
        raise _unusable(name, "it shows several comparisons in one prompt")
    if "tools" in completion:
        raise _unusable(name, "it answers by a function call")
    parser = settings.get("fn_completion_parser", "regex_parser")
    first_share = _reader(name, parser, settings.get("completion_parser_kwargs") or {})
    likeliest = {"max_tokens": 1, "logprobs": True, "top_logprobs": completion.get("top_logprobs")}
    return Annotator(
        name=name,
        model=completion["model_name"],
        messages=tuple((role, content.strip()) for role, content in turns),
        switches=settings.get("is_randomize_output_order", True),
        parameters=likeliest if parser == "logprob_parser" else {},
        first_share=first_share,
    )


def fill(template: Sequence[tuple[str, str]], values: Mapping[str, str]) -> list[dict[str, str]]:
    """Chat messages from a template; braces and marks inside the values stay as they are."""
    pattern = re.compile("|".join(re.escape(f"{{{name}}}") for name in values))
    return [
        {"role": role, "content": pattern.sub(lambda match: values[match[0][1:-1]], content)}
        for role, content in template
    ]


def package_file(*parts: str) -> Path:
    """A file or folder inside the installed package.

    Raises:
        ConfigError: the package is not installed.
    """
    spec = find_spec("alpaca_eval")
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError("The package alpaca-eval is not installed.", "pip install alpaca-eval==0.6.6")
    return Path(spec.submodule_search_locations[0], *parts)


def token_share(answer: JudgeAnswer, tokens: tuple[str, str], binary: bool = False) -> float:
    """P(first) / (P(first) + P(second)) of the two tokens; 1 or 0 where `binary`, a tie being 0.

    Raises:
        UnreadableAnswer: no log-probabilities, or neither token among them.
    """
    if answer.first_token is None:
        raise UnreadableAnswer("the judge gave no log-probabilities")
    first, second = (answer.first_token.get(token, -math.inf) for token in tokens)
    top = max(first, second)
    if not math.isfinite(top):
        seen = ", ".join(repr(token) for token in answer.first_token)
        raise UnreadableAnswer(
            f"neither '{tokens[0]}' nor '{tokens[1]}' is among the likeliest tokens ({seen})"
        )
    if binary:
        return float(first > second)
    return math.exp(first - top) / (math.exp(first - top) + math.exp(second - top))


def ranking_share(answer: JudgeAnswer, model_1_name: str = "model_1") -> float:
    """1 or 0 by the rank of the first model in a Python list of `{'model': …, 'rank': …}`.

    Raises:
        UnreadableAnswer: the text is no such list, or the rank is neither 1 nor 2.
    """
    try:
        ranked = ast.literal_eval(answer.text.strip())
        [rank] = [entry["rank"] for entry in ranked if entry["model"] == model_1_name][:1]
    except (ValueError, SyntaxError, TypeError, LookupError, RecursionError, MemoryError):
        raise UnreadableAnswer(f"the answer is no ranking of the two models: {answer.text[:60]!r}") from None
    if rank not in (1, 2):
        raise UnreadableAnswer(f"the first model's rank is {rank!r}, neither 1 nor 2")
    return _SHARE[rank]


def matched_share(answer: JudgeAnswer, patterns: Mapping[int, re.Pattern[str]]) -> float:
    """1 or 0 by which of the expressions occurs in the text.

    Raises:
        UnreadableAnswer: there is not exactly one occurrence.
    """
    found, rest = [], answer.text
    while matches := [(match, key) for key, pattern in patterns.items() if (match := pattern.search(rest))]:
        first, key = min(matches, key=lambda entry: entry[0].start())
        found.append(key)
        rest = rest[first.end() :]  # `^` counts from here again, as in the package
    if len(found) != 1:
        raise UnreadableAnswer(f"{len(found)} verdicts in the answer instead of one: {answer.text[:60]!r}")
    return _SHARE[found[0]]


def rated_share(answer: JudgeAnswer) -> float:
    """1, 0, or ½ for equal ratings, by the two numbers on the first line of the text.

    Raises:
        UnreadableAnswer: there are no two numbers.
    """
    words = answer.text.split("\n")[0].replace(",", " ").split()
    try:
        first, second = map(float, words)
    except ValueError:
        raise UnreadableAnswer(f"the answer does not begin with two ratings: {answer.text[:60]!r}") from None
    if not (math.isfinite(first) and math.isfinite(second)):
        raise UnreadableAnswer(f"a rating is no finite number: {answer.text[:60]!r}")
    return 0.5 if first == second else float(first > second)


def _reader(name: str, parser: str, kwargs: Mapping[str, Any]) -> Callable[[JudgeAnswer], float]:
    """The function that reads an answer as the package's parser does."""
    match parser:
        case "logprob_parser":
            if kwargs.get("log_prob_index", "batch") not in ("batch", 0):
                raise _unusable(name, "it reads log-probabilities at the end of an explanation")
            first = kwargs["numerator_token"]
            [second] = [token for token in kwargs["denominator_tokens"] if token != first]
            binary = kwargs.get("is_binarize", True)
            return partial(token_share, tokens=(first, second), binary=binary)
        case "ranking_parser":
            return partial(ranking_share, **kwargs)
        case "lmsys_parser":
            return rated_share
        case "regex_parser":
            patterns = {int(key): re.compile(text) for key, text in kwargs["outputs_to_match"].items()}
            return partial(matched_share, patterns=patterns)
    raise _unusable(name, f"its parser is `{parser}`")


def _settings(name: str) -> dict[str, Any]:
    import yaml

    folder = package_file("evaluators_configs")
    file = folder / name / "configs.yaml"
    if not file.is_file():
        known = (path.parent.name for path in folder.glob("*/configs.yaml"))
        raise ConfigError(f"alpaca-eval has no annotator '{name}'.", did_you_mean(name, known))
    settings = list(yaml.safe_load(file.read_text(encoding="utf-8")).values())
    if len(settings) != 1:
        raise _unusable(name, f"it is a pool of {len(settings)} annotators")
    return settings[0]


def _unusable(name: str, why: str) -> ConfigError:
    return ConfigError(
        f"The annotator '{name}' cannot be put to a judge here: {why}.",
        "Use weighted_alpaca_eval_gpt4_turbo, or alpaca_eval_gpt4 for a verdict in text.",
    )
