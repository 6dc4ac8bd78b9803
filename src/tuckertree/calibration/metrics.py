r"""The metrics in which a budget weighs the errors of layers against each other.

An error ``D`` of one layer's kernel changes the network's output by ``J D``, to first order, where ``J`` is the
derivative by the kernel: all positions of an image together, which matters because the errors at neighbouring
positions are alike and add up. With random ``v`` of unit variance ``g = J^T v`` is one backward pass, no label
is needed, and

    E ||J D||^2 = E <g, D>^2,  about  ||(A_T^(1/2) x A_C^(1/2) x A_1^(1/2) x ...) D||_F^2 / (E ||g||^2)^(modes - 1),

a root on each mode of the kernel, where ``A_m = E[g_(m) g_(m)^T]`` is the moment of the gradient's mode
(the preconditioner of Shampoo, arXiv 1802.09568, in another use). So the errors of all layers are in one unit,
that of the network's own output, and what holds for kernels in closed form holds in the metric. On GoogLeNet the prediction is
within a factor of 3.5 of the change that is measured; if positions were taken as independent, up to 65.

The sum of the gradients of a few images, each with a ``v`` of its own, has the expected moments of the sum:
mixed terms vanish on average. So one backward pass for a batch is one sample.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tuckertree._base.errors import TuckertreeError, first_line
from tuckertree._base.progress import ProgressCallback, no_progress, parallel_map
from tuckertree.calibration.batches import batch_size, divided
from tuckertree.calibration.moment import shrinkage
from tuckertree.calibration.parts import images_at_once
from tuckertree.calibration.sources import Calibration, CalibrationData, floating_outputs, to_model
from tuckertree.calibration.units import units_of
from tuckertree.core.decomposition.spectra import lower_gram, mirrored
from tuckertree.core.layers import weight_of
from tuckertree.core.layers.product import is_transformed
from tuckertree.measure import ExampleInputs, call, evaluating, watch_input
from tuckertree.planning import Layer

IMAGES = 256
_FLOOR = 1e-6
_BATCH = 8
_WIDE = 8192
"""Of longer modes, as in VGG-16's first linear layer, only the mean level is taken: their moments need gigabytes, and
are shrunk to little else by the images that there are."""


@dataclass(frozen=True)
class KroneckerMetric:
    """Roots for the modes of one layer's kernel.

    Attributes
    ----------
    roots
        ``R[g, n, n]`` for each mode of ``W[g, T, C, D1, ...]`` after the first, with ``R^T R`` the moment; or
        ``[g, 1, 1]``, a multiple of the identity; None leaves a mode.
    """

    roots: tuple[Tensor | None, ...]

    def of(self, kernel: Tensor) -> Tensor:
        """Kernel ``W[g, T, C, ...]`` in this metric, float64."""
        kernel = kernel.detach().to(torch.float64)
        for mode, root in enumerate(self.roots, 1):
            if root is not None:
                kernel = weigh(root.to(kernel.device), kernel, mode)
        return kernel


def weigh(root: Tensor, tensor: Tensor, mode: int) -> Tensor:
    """Multiply a mode of ``[g, ...]`` by ``[g, n, n]``, or by the multiple ``[g, 1, 1]`` of the identity."""
    moved = tensor.movedim(mode, 1)
    columns = moved.flatten(2)
    columns = root * columns if root.shape[-1] == 1 else root @ columns
    return columns.reshape(moved.shape).movedim(1, mode)


def collect_metrics(
    model: nn.Module,
    layers: Sequence[Layer],
    images: CalibrationData | Calibration,
    *,
    gradients: bool = True,
    count: int = IMAGES,
    seed: int = 0,
    tick: ProgressCallback = no_progress,
) -> dict[str, KroneckerMetric]:
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
        Whether to use derivatives; otherwise a forward pass suffices and the metric is the root of the second
        moment of the layer's input channels, on mode C alone.
    count
        So many images are looked at.
    seed
        Of the random directions ``v``.

    Raises
    ------
    TuckertreeError
        If the model does not run on the images, or no activation is finite.
    NotDifferentiableError
        If an output cannot be differentiated with respect to a layer's weight.
    """
    if not layers:
        return {}
    images = Calibration(images).in_batches(_BATCH)
    sums: dict[str, Any] = {layer.name: (GradientSum if gradients else InputSum)(layer) for layer in layers}
    at_once = images_at_once(model, layers, images)
    gather = _gradients(model, sums, seed, at_once) if gradients else _inputs(model, sums, at_once)
    # In evaluation mode cuDNN does not differentiate recurrent layers.
    recurrent = gradients and any(isinstance(module, nn.RNNBase) for module in model.modules())
    cudnn = torch.backends.cudnn.flags(enabled=False) if recurrent else nullcontext()
    seen = 0
    with evaluating(model, as_written=True), cudnn, gather as step:
        for inputs in images.part(0, count):
            step(to_model(inputs, model))
            seen += batch_size(inputs)
            tick("metrics", seen, count)
    if sums and not gradients and all(each.is_blind for each in sums.values()):
        raise TuckertreeError(f"{next(iter(sums))}: the calibration images give NaN or infinite activations")
    return dict(
        parallel_map(
            lambda layer: (layer.name, sums.pop(layer.name).metric()),
            layers,
            size=lambda layer: sum(n**3 for n in layer.spec.kernel_shape),
        )
    )


class NotDifferentiableError(TuckertreeError):
    """A network's outputs have no derivatives by the weights of its layers."""


class GradientSum:
    """Moments of the modes of a layer's gradient, ``[g, n, n]`` each."""

    def __init__(self, layer: Layer) -> None:
        self.layer, self.images = layer, 0
        self._sums: list[Tensor] = []

    def add(self, gradient: Tensor, images: int) -> None:
        """Add the gradient by the weight, of so many images together."""
        gradient = self.layer.spec.kernel(gradient.detach())
        modes = (gradient.movedim(mode, 1).flatten(2) for mode in range(1, gradient.ndim))
        found = [_moment(columns) for columns in modes]
        self._sums = [a.add_(b) for a, b in zip(self._sums, found, strict=True)] if self._sums else found
        self.images += images

    def metric(self) -> KroneckerMetric:
        """The metric of the network's output; raises NotDifferentiableError if nothing or NaN was added."""
        trouble = "no derivative of the outputs reaches this layer" if not self._sums else ""
        if not all(each.isfinite().all() for each in self._sums):
            trouble = "the derivatives of the outputs by this layer are NaN or infinite"
        if trouble:
            raise NotDifferentiableError(
                f"{self.layer.name}: {trouble}; exclude it or use the objective moments"
            )
        repeated = self.layer.spec.kernel_shape[0] // self._sums[0].shape[-1]  # 1 but for a wide mode
        whole = repeated * self._sums[0].diagonal(dim1=1, dim2=2).sum(1) / self.images
        share = whole.clamp_min(torch.finfo(whole.dtype).tiny) ** (1 / len(self._sums) - 1)
        means = (each / self.images * share[:, None, None] for each in self._sums)
        return KroneckerMetric(tuple(_root(mean, self.images) for mean in means))


class InputSum:
    """Second moment of a layer's input channels, ``[g, C, C]``.

    Attributes
    ----------
    is_blind
        Whether it saw NaN or infinite values.
    """

    def __init__(self, layer: Layer) -> None:
        self.layer, self.images, self.is_blind = layer, 0, False
        self._sum: Tensor | None = None
        self._columns = 0

    def add(self, x: Tensor) -> None:
        """Add the layer's input for some images."""
        if is_transformed() or x.is_nested or not x.numel():
            return  # values that cannot be had, or no rows were chosen
        spec = self.layer.spec
        channels = x.detach().movedim(x.ndim - spec.order - 1, 0)
        columns = channels.reshape(spec.groups, spec.in_channels // spec.groups, -1)
        gram = _moment(columns)
        self._sum = gram if self._sum is None else self._sum + gram
        self._columns += columns.shape[-1]
        self.images += x.shape[0]
        self.is_blind |= not bool(gram.isfinite().all())

    def metric(self) -> KroneckerMetric:
        """The metric of the layer's own output; that of its weight if the layer saw nothing that can be used."""
        if self._sum is None or self.is_blind:
            return KroneckerMetric((None, torch.ones(self.layer.spec.groups, 1, 1, dtype=torch.float64)))
        return KroneckerMetric((None, _root(self._sum / self._columns, self.images)))


def _moment(columns: Tensor) -> Tensor:
    """Lower triangle of the second moment ``[g, n, n]`` of ``[g, n, m]``; of a wide mode its mean level ``[g, 1, 1]``."""
    columns = columns.to(torch.promote_types(columns.dtype, torch.float32))  # float16 would overflow
    size = columns.shape[1]
    if size > _WIDE:
        return (columns * columns).sum((1, 2), keepdim=True, dtype=torch.float64).cpu() / size
    # Squares of what networks with random weights send back would be below float32's range.
    largest = columns.abs().amax((1, 2), keepdim=True)
    gram = lower_gram(columns / largest.where(largest > 0, 1.0)).to("cpu", torch.float64)
    return gram * largest.to(gram).square()


def _root(gram: Tensor, images: int) -> Tensor:
    """Root ``R`` with ``R^T R`` a moment, shrunk: directions that the few images do not have must not be free.

    Any root will do, as singular values do not see a rotation, so Cholesky's: a tenth of the symmetric one's time.
    """
    gram, size = mirrored(gram), gram.shape[-1]
    level = gram.diagonal(dim1=1, dim2=2).mean(1)[:, None, None]
    level = level.where(level > 0, 1.0)
    gram = gram / level
    rho = shrinkage(gram, images).clamp_min(_FLOOR * size)[:, None, None]
    shrunk = (1 - rho) * gram + rho * torch.eye(size).to(gram)
    return torch.linalg.cholesky(shrunk, upper=True) * level.sqrt()


Step = Callable[[ExampleInputs], None]


@contextmanager
def _gradients(
    model: nn.Module, sums: Mapping[str, GradientSum], seed: int, at_once: int | None
) -> Iterator[Step]:
    """Send random directions back from the outputs to the weights; no parameter keeps a gradient."""
    generator = torch.Generator().manual_seed(seed)
    weights = [weight_of(model.get_submodule(name)) for name in sums]
    frozen = [weight for weight in weights if not weight.requires_grad]

    @torch.enable_grad()
    def step(inputs: ExampleInputs) -> None:
        outputs = [y for y in _outputs(model, inputs, at_once) if y.requires_grad]
        if not outputs:
            raise NotDifferentiableError(
                "no derivative leads from the model's outputs to its weights; use the objective moments"
            )
        outputs = [units_of(y.detach())(y) for y in outputs]
        directions = [_direction(y, generator) for y in outputs]
        try:
            found = torch.autograd.grad(outputs, weights, directions, allow_unused=True)
        except RuntimeError as error:
            raise NotDifferentiableError(
                f"the model's outputs cannot be differentiated: {first_line(error)}; exclude layers or use the objective moments"
            ) from error
        for total, gradient in zip(sums.values(), found, strict=True):
            if gradient is not None:
                total.add(gradient, batch_size(inputs))

    for weight in frozen:
        weight.requires_grad_(True)
    try:
        yield step
    finally:
        for weight in frozen:
            weight.requires_grad_(False)


def _outputs(model: nn.Module, inputs: ExampleInputs, at_once: int | None) -> list[Tensor]:
    """Outputs for a batch, from so many images at a time where what comes of it can be put together."""
    parts = divided(inputs, at_once)
    found = [floating_outputs(call(model, part, "the calibration images")) for part in parts]
    if len(parts) == 1:
        return found[0]
    shapes = [[(batch_size(part), *y.shape[1:]) for y in found[0]] for part in parts]
    if [[tuple(y.shape) for y in outputs] for outputs in found] != shapes:
        return floating_outputs(call(model, inputs, "the calibration images"))
    return [torch.cat(outputs) for outputs in zip(*found, strict=True)]


def _direction(output: Tensor, generator: torch.Generator) -> Tensor:
    v = torch.randn(output.shape, generator=generator).to(output)
    # Logits that all rise together say nothing new.
    return v - v.mean(1, keepdim=True) if output.ndim == 2 else v


@contextmanager
def _inputs(model: nn.Module, sums: Mapping[str, InputSum], at_once: int | None) -> Iterator[Step]:
    """Listen to what goes into the layers."""

    @torch.no_grad()
    def step(inputs: ExampleInputs) -> None:
        for part in divided(inputs, at_once):
            call(model, part, "the calibration images")

    handles = [watch_input(model.get_submodule(name), total.add) for name, total in sums.items()]
    try:
        yield step
    finally:
        for handle in handles:
            handle.remove()
