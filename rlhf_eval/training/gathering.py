"""A policy that is trained by several processes, whole on each of them for a while."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from rlhf_eval.training.measure import Policies


@contextmanager
def whole(trainer: Any, reference: Any) -> Iterator[Policies]:
    """The policies with all their weights on this process, gathered where DeepSpeed has split them. What is
    done with them inside is this process's own affair: no other waits for it.

    Args:
        reference: a whole copy of the initial policy; None where the trainer has a reference or trains
            adapters.
    """
    split = nullcontext(reference) if trainer.ref_model is None else _gathered(trainer, trainer.ref_model)
    with _gathered(trainer, trainer.model_wrapped) as policy, split as frozen:

        @contextmanager
        def initial() -> Iterator[Any]:
            with policy.disable_adapter() if frozen is None else nullcontext():
                yield policy if frozen is None else frozen

        yield Policies(policy, initial)


@contextmanager
def _gathered(trainer: Any, wrapped: Any) -> Iterator[Any]:
    from trl.distributed import DistributedBackend
    from trl.models.utils import unwrap_model_for_generation

    with unwrap_model_for_generation(wrapped, trainer.accelerator) as unwrapped:
        model: Any = unwrapped
        if not DistributedBackend(trainer.accelerator).is_zero3:
            yield model
            return
        # TRL takes DeepSpeed's hooks off but for this one, which compares notes with the other processes at
        # each forward pass and so would wait for theirs.
        offload = getattr(wrapped.optimizer, "parameter_offload", wrapped.optimizer)
        hooks, number = model._forward_pre_hooks, offload.fwd_pre_hook.id
        hook = hooks.pop(number)
        try:
            yield model
        finally:
            hooks[number] = hook
