"""What is known of a reward model, and so what of its numbers can be checked by anybody."""

from collections.abc import Sequence
from dataclasses import dataclass

from rlhf_eval.config.reward_schema import ModelCard, RewardModelConfig

WORDS = {True: "open", False: "closed", None: "not known"}


@dataclass(frozen=True)
class Fact:
    """One line of the openness card.

    Attributes:
        what: weights, data, code, recipe or licence.
        state: "open", "closed" or "not known"; the licence's name.
        consequence: what can be tested because of it, or what cannot.
    """

    what: str
    state: str
    consequence: str


def openness_card(config: RewardModelConfig, searched: Sequence[str] = ()) -> list[Fact]:
    """Weights, data, code, recipe and licence of a reward model, each with what follows for an audit.

    Args:
        searched: sources that this audit has searched for overlap.
    """
    card = config.card
    return [
        Fact(
            "weights",
            WORDS[card.open_weights],
            {
                True: "scores can be reproduced, on private sets too",
                False: "scores cannot be reproduced, and a private set would have to be sent to the owner",
                None: "whether others can reproduce its scores is not known",
            }[card.open_weights],
        ),
        Fact("training data", WORDS[card.open_data], _data(card, searched)),
        Fact(
            "training code",
            WORDS[card.open_code],
            "the training can be repeated without what is suspected"
            if card.open_code and card.open_data
            else "the training cannot be repeated without what is suspected",
        ),
        Fact(
            "recipe",
            WORDS[card.open_recipe],
            "what it was trained on is told, if not shown"
            if card.open_recipe
            else "how its data were chosen and filtered must be guessed",
        ),
        Fact(
            "licence",
            card.licence or "not known",
            "says who may use the weights" if card.licence else "whether it may be used must be asked",
        ),
        Fact(
            "base model",
            card.base_model or "not known",
            "what the base model had seen is not in this audit: compare with reward models of the same base"
            if card.base_model
            else "what it had seen before it became a reward model is not known",
        ),
    ]


def _data(card: ModelCard, searched: Sequence[str]) -> str:
    names = f" ({', '.join(card.training_data)})" if card.training_data else ""
    if searched:
        whole = "all of its data" if card.open_data else "whether these are all of its data is not known"
        return f"overlap was tested in {', '.join(searched)}: {whole}{names}"
    if card.training_sources:
        return f"overlap with benchmarks can be tested{names}"
    if card.open_data:
        return f"overlap with benchmarks can be tested once card.training_sources names the files{names}"
    if card.open_data is None:
        return f"whether overlap can be tested is not known{names}"
    return f"training data closed: overlap cannot be tested{names}"
