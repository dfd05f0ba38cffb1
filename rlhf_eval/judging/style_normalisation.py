"""Frozen constants by which style differences are standardised before style control.

arena-hard-auto standardises by mean and standard deviation over whatever models stand in its folder. A
Bradley–Terry strength is the log-odds at standardised difference zero, so its style-controlled scores mean
"at the pool's average style difference" and move with the pool. The scale cancels: dividing a feature
multiplies its coefficient. So what has to be frozen is the mean, the style difference at which scores are
read off. By default it is zero, answers of equal style, which needs no pool.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from rlhf_eval.errors import DataError
from rlhf_eval.files import read_json, write_json
from rlhf_eval.judging.style_features import FEATURES


@dataclass(frozen=True, slots=True)
class Constants:
    """Mean and standard deviation of the four differences, in the order of `FEATURES`."""

    mean: tuple[float, ...]
    scale: tuple[float, ...]

    def standardised(self, differences: np.ndarray) -> np.ndarray:
        """(differences − mean) / scale; shape (…, 4) as given."""
        return (differences - np.array(self.mean)) / np.array(self.scale)


EQUAL_STYLE = Constants(mean=(0.0, 0.0, 0.0, 0.0), scale=(0.25, 0.005, 0.015, 0.01))
"""Scores at answers of equal style. The scale, of no influence on them, is near that of published answers."""


@dataclass(frozen=True, slots=True)
class Normalisation:
    """Constants of one pool of models, by category.

    Attributes:
        name: which pool, for results to say so.
        length: the counter of length that the pool was measured with; None if they hold for any.
        categories: constants by category; empty is `EQUAL_STYLE` for all.
    """

    name: str
    length: str | None
    categories: Mapping[str, Constants]

    def constants(self, category: str, length: str) -> Constants:
        """What to standardise one category by, its lengths counted by `length`.

        Raises:
            DataError: the pool had no such category, or counted length in another way.
        """
        if not self.categories:
            return EQUAL_STYLE
        if category not in self.categories or self.length != length:
            raise DataError(
                f"The style constants '{self.name}' are of the categories {', '.join(self.categories)} with "
                f"length as {self.length}, not of {category} with {length}.",
                "Freeze constants from judgments and answers of this kind, or name none.",
            )
        return self.categories[category]


EQUAL = Normalisation("equal style", None, {})


def pool_constants(differences: np.ndarray, rows: np.ndarray) -> Constants:
    """Mean and standard deviation over battle rows, as arena-hard-auto takes them.

    Args:
        differences: shape (models, questions, 4).
        rows: shape (models, questions), battle rows of each pair; 0 where there is no verdict.

    Raises:
        DataError: a feature does not vary, so that nothing can be standardised by it.
    """
    weights = rows[..., None]
    mean = (weights * differences).sum(axis=(0, 1)) / rows.sum()
    scale = np.sqrt((weights * (differences - mean) ** 2).sum(axis=(0, 1)) / (rows.sum() - 1))
    if not (scale > 0).all():
        still = [name for name, value in zip(FEATURES, scale, strict=True) if not value > 0]
        raise DataError(
            f"All answers of the pool are alike in {', '.join(still)}.",
            "Freeze constants from a larger pool.",
        )
    return Constants(tuple(mean.tolist()), tuple(scale.tolist()))


def write_normalisation(path: Path, normalisation: Normalisation) -> None:
    """Store constants, to be named as `prompts.arena_hard.style_normalisation`."""
    write_json(path, asdict(normalisation))


def read_normalisation(path: Path) -> Normalisation:
    """The constants that `write_normalisation` stored.

    Raises:
        DataError: the file is absent or holds something else.
    """
    value = read_json(path)
    try:
        categories = {
            name: Constants(*(_four(constants[key]) for key in ("mean", "scale")))
            for name, constants in value["categories"].items()
        }
        return Normalisation(str(value["name"]), value["length"], categories)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{path} holds no style constants: {error!r}.", "Give a file made by `write_normalisation`."
        ) from None


def _four(values: list[float]) -> tuple[float, ...]:
    if len(values) != len(FEATURES):
        raise ValueError(f"{len(values)} values instead of {len(FEATURES)}")
    return tuple(map(float, values))
