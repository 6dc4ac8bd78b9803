"""What a runtime has loaded, as modules to be compared with others."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tuckertree.network.onnx.runtime import Session
from tuckertree.runtimes import Runnable


class Loaded(nn.Module):
    """What a runtime has loaded, as a module."""

    def __init__(self, runnable: Runnable) -> None:
        super().__init__()
        self._runnable = runnable

    def forward(self, *inputs: Tensor) -> list[Tensor]:
        """Its outputs, where the inputs are."""
        return [output.to(inputs[0].device) for output in self._runnable.run(inputs)]


class LoadedFile(nn.Module):
    """An ONNX model in ONNX Runtime, called by the names of its inputs."""

    def __init__(self, session: Session) -> None:
        super().__init__()
        self._session = session

    def forward(self, **inputs: Tensor) -> list[Tensor]:
        """Its outputs, on the CPU."""
        found = self._session.run({name: x.cpu().numpy() for name, x in inputs.items()})
        return [torch.from_numpy(output) for output in found.values()]
