"""A step's forward and backward pass as one CUDA graph: one launch in the place of hundreds."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

WARM_UP = 3
"""Runs before the capture, in which kernels are chosen and memory is laid out."""


class CapturedPass:
    """Forward and backward pass for batches of one shape, captured once and replayed.

    A chain is many small kernels, and launching them one by one takes longer than running them. The capture leaves
    the network as it was: running statistics that the warm-up moves are put back. Gradients are written anew by each
    replay, so they must not be set to None in between.

    Parameters
    ----------
    network
        In training mode, on a CUDA device.
    forward
        Takes images and labels, gives the loss and the logits.
    images, labels
        A batch; all others have its shapes.
    """

    def __init__(
        self,
        network: nn.Module,
        forward: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]],
        images: Tensor,
        labels: Tensor,
    ) -> None:
        self._images, self._labels = images.clone(), labels.clone()
        kind = images.device.type
        # A cached cast of a weight would be captured as a constant.
        precision = torch.autocast(
            kind,
            torch.get_autocast_dtype(kind),
            enabled=torch.is_autocast_enabled(kind),
            cache_enabled=False,
        )

        def both() -> tuple[Tensor, Tensor]:
            with precision:
                loss, logits = forward(self._images, self._labels)
            with torch.autocast(kind, enabled=False):
                loss.backward()
            return loss.detach(), logits.detach()

        kept = {name: tensor.clone() for name, tensor in network.state_dict().items()}
        stream = torch.cuda.Stream(images.device)
        stream.wait_stream(torch.cuda.current_stream(images.device))
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP):
                network.zero_grad(set_to_none=True)
                both()
        torch.cuda.current_stream(images.device).wait_stream(stream)
        network.zero_grad(set_to_none=True)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._loss, self._logits = both()
        with torch.no_grad():
            for name, tensor in network.state_dict().items():
                tensor.copy_(kept[name])

    def __call__(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Loss and logits of a batch, which the next call overwrites; the gradients are in the parameters."""
        self._images.copy_(images)
        self._labels.copy_(labels)
        self._graph.replay()
        return self._loss, self._logits
