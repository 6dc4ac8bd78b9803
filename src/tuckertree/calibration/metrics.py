r"""The metrics in which a budget weighs the errors of layers against each other.

An error ``D = W - W^`` of one layer's kernel changes the layer's output by ``D x`` and, to first order, the
network's output ``y`` by ``J D x``. With ``Sigma_C = E[x x^T]`` over the input channels and ``G = E[J^T J]`` over
the layer's output channels, summed over its positions,

    E ||J D x||^2  is about  tr(G D Sigma_C D^T) = || G^(1/2) D Sigma_C^(1/2) ||_F^2,

if inputs and derivatives are taken as independent, positions too, and taps as alike. So the kernel times one
root on each channel mode makes the errors of all layers comparable, in the unit of the network's own output.
``G`` needs no labels: ``J^T v`` with random ``v`` of unit variance is one backward pass.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tuckertree.calibration.moment import Moment, symmetric_roots
from tuckertree.calibration.sources import Calibration, Source, each_tensor, floating_outputs, to_model
from tuckertree.errors import TuckertreeError
from tuckertree.layers import LayerSpec
from tuckertree.measure import ExampleInputs, call, evaluating
from tuckertree.planning import Layer
from tuckertree.progress import Tick, no_progress

IMAGES = 256
_FLOOR = 1e-6
_BATCH = 16


@dataclass(frozen=True)
class ChannelMetric:
    """Roots for the channel modes of one layer's kernel.

    Attributes
    ----------
    inputs
        ``Sigma_C^(1/2)``, ``[g, C, C]``.
    outputs
        ``G^(1/2)``, ``[g, T, T]``, or None if only the layer's own output counts.
    """

    inputs: Tensor
    outputs: Tensor | None = None

    def of(self, kernel: Tensor) -> Tensor:
        """Kernel ``W[g, T, C, ...]`` in this metric, float64."""
        kernel = kernel.detach().to(torch.float64)
        kernel = torch.einsum("gtc...,gcd->gtd...", kernel, self.inputs.to(kernel.device))
        if self.outputs is None:
            return kernel
        return torch.einsum("gst,gtc...->gsc...", self.outputs.to(kernel.device), kernel)


def collect_metrics(
    model: nn.Module,
    layers: Sequence[Layer],
    images: Source | Calibration,
    *,
    gradients: bool = True,
    count: int = IMAGES,
    seed: int = 0,
    tick: Tick = no_progress,
) -> dict[str, ChannelMetric]:
    """Gather the metrics of layers in one pass, by name.

    Parameters
    ----------
    model
        The dense model; it is left as it was, its gradients too.
    layers
        Layers of it.
    images
        Without labels.
    gradients
        Whether to gather ``G``; otherwise a forward suffices.
    count
        So many images are looked at.
    seed
        Of the random directions ``v``.

    Raises
    ------
    TuckertreeError
        If the model does not run on the images, its activations are not finite, or no output can be derived.
    """
    images = Calibration(Calibration(images).source, batch_size=_BATCH)
    generator = torch.Generator().manual_seed(seed)
    sums = {layer.name: MetricSum(layer) for layer in layers}
    seen = 0
    with evaluating(model), _listening(model, sums, gradients=gradients):
        for inputs in images.part(0, count):
            moved = to_model(inputs, model)
            with torch.set_grad_enabled(gradients):
                if gradients:
                    _derive(model, moved, generator)
                else:
                    call(model, moved, "the calibration images")
            seen += _BATCH
            tick("metrics", min(seen, count), count)
    return {name: total.result(name, gradients=gradients) for name, total in sums.items()}


class MetricSum:
    """Second moments of a layer's input channels, and of the derivatives at its output channels."""

    def __init__(self, layer: Layer) -> None:
        self.spec: LayerSpec = layer.spec
        self.inputs: Tensor | None = None
        self.outputs: Tensor | None = None
        self.columns = 0
        self.samples = 0

    def add_inputs(self, x: Tensor) -> None:
        """Add the layer's input for some samples."""
        columns = self._columns(x, self.spec.in_channels)
        self.inputs = _added(self.inputs, columns)
        self.columns += columns.shape[-1]
        self.samples += x.shape[0]

    def add_outputs(self, derivative: Tensor) -> None:
        """Add derivatives at the layer's output."""
        self.outputs = _added(self.outputs, self._columns(derivative, self.spec.out_channels))

    def result(self, name: str, *, gradients: bool, shrink: bool = False) -> ChannelMetric:
        """The metric; with ``gradients`` that of the network's output.

        With ``shrink`` the moment of a layer that saw fewer positions than it has channels is shrunk
        (:meth:`Moment.shrunk`): directions that no image has shown are not free.

        Raises
        ------
        TuckertreeError
            If nothing was added, or it is not finite; the message has the layer's name.
        """
        if self.inputs is None or (gradients and self.outputs is None):
            raise TuckertreeError(f"{name}: the calibration images do not reach this layer")
        inputs = self.inputs / self.columns
        if shrink and self.columns < inputs.shape[-1]:
            inputs = Moment(inputs, inputs.new_zeros(inputs.shape[:2]), 1, self.columns).shrunk().patch
        outputs = self.outputs / self.samples if gradients and self.outputs is not None else None
        if not inputs.isfinite().all() or (outputs is not None and not outputs.isfinite().all()):
            raise TuckertreeError(f"{name}: the calibration images give NaN or infinite activations")
        return ChannelMetric(
            inputs=symmetric_roots(inputs, _FLOOR)[0],
            outputs=None if outputs is None else symmetric_roots(outputs, _FLOOR)[0],
        )

    def _columns(self, x: Tensor, channels: int) -> Tensor:
        """Channels of each group against everything else, ``[g, channels / g, n]``."""
        order = self.spec.order
        axis = x.ndim - order - 1
        return x.detach().movedim(axis, 0).reshape(self.spec.groups, channels // self.spec.groups, -1)


def _added(total: Tensor | None, columns: Tensor) -> Tensor:
    gram = (columns @ columns.mT).to("cpu", torch.float64)
    return gram if total is None else total + gram


@contextmanager
def _listening(model: nn.Module, sums: dict[str, MetricSum], *, gradients: bool) -> Iterator[None]:
    """Add up what goes into each layer and, by a hook on its output, the derivatives that come back."""

    def hook(total: MetricSum) -> Any:
        def listen(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG001
            total.add_inputs(args[0])
            if gradients and output.requires_grad:
                output.register_hook(total.add_outputs)

        return listen

    handles = [model.get_submodule(name).register_forward_hook(hook(total)) for name, total in sums.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _derive(model: nn.Module, inputs: ExampleInputs, generator: torch.Generator) -> None:
    """Send random directions back from the outputs to the inputs; no parameter keeps a gradient."""
    leaves: list[Tensor] = []

    def follow(value: Any) -> Any:
        if isinstance(value, Tensor) and value.is_floating_point():
            leaves.append(value.detach().clone().requires_grad_())
            return leaves[-1]
        return value

    inputs = each_tensor(inputs, follow)
    outputs = [y for y in floating_outputs(call(model, inputs, "the calibration images")) if y.requires_grad]
    if not outputs or not leaves:
        raise TuckertreeError(
            "no derivative leads from the model's outputs to its inputs; use another objective"
        )
    directions = []
    for output in outputs:
        v = torch.randn(output.shape, generator=generator).to(output)
        # Logits that all rise together say nothing new.
        directions.append(v - v.mean(1, keepdim=True) if output.ndim == 2 else v)
    torch.autograd.grad(outputs, leaves, directions, allow_unused=True)
