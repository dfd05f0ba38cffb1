"""What fields of every configuration are made of."""

from dataclasses import field
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Lt
from pydantic import ConfigDict

STRICT = ConfigDict(extra="forbid", use_attribute_docstrings=True, coerce_numbers_to_str=True)

Positive = Annotated[int, Gt(0)]
NonNegative = Annotated[int, Ge(0)]
Share = Annotated[float, Ge(0), Lt(1)]
DType = Literal["float32", "bfloat16", "float16"]


def unfingerprinted(default: Any) -> Any:
    """A field that says where or how fast a run executes, never what comes out of it."""
    return field(default=default, metadata={"fingerprint": False})


def added(default: Any) -> Any:
    """A field that changes results and was added after a release.

    The default must be what the program did before: a frozen configuration without the field means it, and
    keeps its hash.
    """
    return field(default=default, metadata={"added": True})
