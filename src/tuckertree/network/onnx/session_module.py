"""An ONNX file run by ONNX Runtime, as a module to be evaluated like one."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from tuckertree._base.errors import UsageError
from tuckertree.network.onnx.files import read_onnx
from tuckertree.network.onnx.graph import Graph
from tuckertree.network.onnx.inputs import as_feed, fixed_batch
from tuckertree.network.onnx.runtime import Session


class SessionModule(nn.Module):
    """Runs an ONNX file of one input in ONNX Runtime, in the types that it takes.

    Attributes
    ----------
    batch
        Samples that it takes at a time, where the file prescribes it.
    """

    def __init__(self, path: str | Path) -> None:
        super().__init__()
        self._graph = Graph(read_onnx(path).proto)
        self._session = Session(Path(path))
        self.batch = fixed_batch(self._graph)

    def forward(self, x: Tensor) -> Tensor:
        """First output; samples that do not fill a prescribed batch are filled up with the first of them."""
        missing = (self.batch or len(x)) - len(x)
        if missing < 0:
            raise UsageError(f"the model takes {self.batch} samples at a time, not {len(x)}")
        whole = torch.cat([x, x[:1].expand(missing, *x.shape[1:])]) if missing else x
        outputs = self._session.run(as_feed(whole, self._graph))
        return torch.as_tensor(next(iter(outputs.values())))[: len(x)]
