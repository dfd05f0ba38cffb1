"""Gradient clipping by the norm of each owner of weights, where one optimiser holds several.

`owners` names the owner of each of the optimiser's groups of parameters, in their order. The groups cannot:
what a checkpoint says of a group replaces what was there.
"""

from collections.abc import Callable, Sequence
from functools import wraps
from math import inf
from typing import Any


def clip_apart(optimizer: Any, owners: Sequence[str], most: float) -> dict[str, float]:
    """Scale each owner's gradients down to a norm of at most `most`; their norms before, by owner.

    DeepSpeed has clipped them when its optimiser stepped: see `clip_apart_in_deepspeed`.

    Args:
        optimizer: the trainer's, as accelerate wraps it.
    """
    import torch

    inner = optimizer.optimizer
    if hasattr(inner, "owner_norms"):
        return {owner: float(norm) for owner, norm in inner.owner_norms.items()}
    found = {}
    for owner in dict.fromkeys(owners):
        groups = [g for g, its in zip(inner.param_groups, owners, strict=True) if its == owner]
        values = [value for group in groups for value in group["params"]]
        found[owner] = torch.nn.utils.clip_grad_norm_(values, most).item()
    return found


def clip_apart_in_deepspeed(optimizer: Any, owners: Sequence[str]) -> None:
    """Make DeepSpeed's ZeRO-2 or ZeRO-3 optimiser clip each owner's gradients by their own norm.

    DeepSpeed takes one norm over all groups of parameters and hands it to `unscale_and_clip_grads` for one
    group after the other. On this object the group's owner's norm is handed over instead; `owner_norms` holds
    those of the last step, infinite where DeepSpeed skipped it because a gradient was not finite.
    """
    from deepspeed.runtime.utils import combine_grad_norm_groups

    clipped = list(owners)
    if hasattr(optimizer, "sub_group_to_group_id"):  # ZeRO-3 cuts a group into sub-groups
        groups = range(len(optimizer.fp16_groups))
        clipped = [owners[int(optimizer.sub_group_to_group_id[group])] for group in groups]
    norms: list[Any] = []
    for name in ("get_grad_norm_direct", "complete_grad_norm_calculation_for_cpu_offload"):
        setattr(optimizer, name, _keeping(getattr(optimizer, name), norms))
    step, clip = optimizer.step, optimizer.unscale_and_clip_grads

    def clipping(gradients: Any, _: Any) -> None:
        if not pending:  # the first group of a step
            pending.extend(clipped)
            for owner in dict.fromkeys(owners):
                own = [norm for norm, its in zip(norms, clipped, strict=True) if its == owner]
                optimizer.owner_norms[owner] = combine_grad_norm_groups(own)
        clip(gradients, optimizer.owner_norms[pending.pop(0)])

    def stepping(*words: Any, **named: Any) -> Any:
        norms.clear()
        pending.clear()
        optimizer.owner_norms = dict.fromkeys(owners, inf)
        return step(*words, **named)

    pending: list[str] = []
    optimizer.owner_norms = dict.fromkeys(owners, inf)
    optimizer.unscale_and_clip_grads = clipping
    optimizer.step = stepping


def _keeping(function: Callable[..., Any], results: list[Any]) -> Callable[..., Any]:
    """The same function; what it returns is kept."""

    @wraps(function)
    def call(*words: Any, **named: Any) -> Any:
        result = function(*words, **named)
        results.append(result)
        return result

    return call
