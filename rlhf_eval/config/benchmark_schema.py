"""Group `benchmark`: what a reward model's accuracy is measured on."""

from typing import Annotated

from annotated_types import MinLen
from pydantic.dataclasses import dataclass

from rlhf_eval.config.fields import STRICT, unfingerprinted


@dataclass(frozen=True, config=STRICT)
class BenchmarkConfig:
    """Group `benchmark`: a static benchmark of right and wrong answers."""

    name: str
    """Name in tables and plots."""
    data: Annotated[dict[str, str], MinLen(1)]
    """Parts of the data set and their sources."""
    kind: str = "pairs"
    """Key in the registry of benchmarks (`rlhf_eval/benchmarks/kinds.py`): format of the data and metric."""
    private: bool = False
    """Nobody else has seen the data: results then hold ids and salted hashes only, and a reward model behind
    an address is refused."""
    may_be_sent_to_remote_models: bool = unfingerprinted(False)
    """Allow a private set to be sent to a reward model or judge behind an address."""
