"""vLLM's linear layers on the CPU keep their weights as they are, so that a trainer can hand over new ones.

vLLM packs the weights of linear layers for the CPU when they are loaded and throws the originals away. Python
imports this file by itself where its folder is on PYTHONPATH; the packing is replaced when vLLM is imported.
"""

import importlib.abc
import importlib.machinery
import sys
from typing import Any

TARGET = "vllm.model_executor.layers.utils"


def unpacked(layer: Any, remove_weight: bool) -> None:
    """Compute with the weights themselves."""
    import torch

    layer.cpu_linear = lambda x, weight, bias: torch.nn.functional.linear(x, weight, bias)


class Finder(importlib.abc.MetaPathFinder):
    """Finds the one module, and changes it after it was executed."""

    def find_spec(self, name: str, path: Any, target: Any = None) -> Any:
        if name != TARGET:
            return None
        sys.meta_path.remove(self)
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        assert spec is not None
        assert spec.loader is not None
        execute = spec.loader.exec_module

        def executing(module: Any) -> None:
            execute(module)
            module.dispatch_cpu_unquantized_gemm = unpacked

        spec.loader.exec_module = executing  # type: ignore[method-assign]
        return spec


sys.meta_path.insert(0, Finder())
