"""A compressed network as an ONNX file in 8 bits, and which precision is nearest to the original."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf, isfinite
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from tuckertree._base.errors import TuckertreeError, UsageError
from tuckertree.calibration import Calibration, images_for_int8, output_distances, rebalance_for_int8
from tuckertree.calibration.batchnorm import held_out
from tuckertree.calibration.distances import IncomparableError
from tuckertree.calibration.sources import to_model
from tuckertree.compression.loaded import Loaded, LoadedFile
from tuckertree.compression.onnx_batches import feeds_of
from tuckertree.io.export import export
from tuckertree.io.export.exporting import difference_to
from tuckertree.io.export.mixed import INT8_TOLERANCE, Int8Layers
from tuckertree.io.export.quantization import Sample, parted, quantize
from tuckertree.io.folder import QUANTIZED
from tuckertree.latency import fuse_as_planned
from tuckertree.measure import ExampleInputs, copy_for_inference
from tuckertree.network.onnx.graph import Graph
from tuckertree.network.onnx.runtime import Session
from tuckertree.planning import Plan
from tuckertree.runtimes import get_runtime
from tuckertree.runtimes.quantization import doubts_of_cpu

if TYPE_CHECKING:
    from onnx import ModelProto

_BATCH, _IMAGES = 32, 256
"""Images at a time, and at most, that the ranges of activations are measured by."""
Fits = Callable[[Any], bool]
"""Whether a quantized ONNX model is fast enough."""
_LOST = 0.5
"""Relative distance of the outputs from which on little is left of them."""


@dataclass(frozen=True)
class Int8Network:
    """An ONNX file in 8 bits that was compared with the network it was made from.

    Attributes
    ----------
    content
        The file.
    images
        Calibration images that the ranges of activations were measured on.
    difference
        Largest difference of outputs to the network in single precision, relative to the largest of them; None of an
        ONNX file that was compressed, which is compared with the original instead.
    distance
        Relative distance of its outputs from the original's on calibration images held out; None where outputs
        cannot be compared.
    layers
        Which of its layers are in 8 bits, and what that costs beside the same network in single precision.
    held_out
        Whether images held out fill a batch; if not, all distances are of images that were fitted to.
    """

    content: bytes
    images: int
    difference: float | None
    distance: float | None
    layers: Int8Layers = field(default_factory=lambda: Int8Layers(()))
    held_out: bool = True

    def lines(self) -> list[str]:
        """What there is to say of it."""
        found = [f"{len(self.content) / 1e6:.2f} MB, quantized by {self.images} images"]
        if self.distance is not None:
            which = "held out" if self.held_out else "fitted to"
            found.append(f"outputs {self.distance:.1%} from the original's on images {which}")
        if self.difference is not None:
            found.append(f"at most {self.difference:.2g} of the largest from those in fp32")
        return [f"int8        {', '.join(found)}", *(self.layers.lines() if self.layers.layers else [])]

    def warnings(self) -> list[str]:
        """Reasons to doubt that it is of use."""
        return [*doubts_of_cpu(), *self._losses()]

    def _losses(self) -> list[str]:
        if self.difference is not None and not isfinite(self.difference):
            return ["in 8 bits the outputs are not finite: do not use the file"]
        said, layers = list[str](), self.layers
        if layers.too_far:
            far = f"{layers.distance:.1%} of their norm from those in fp32"
            said.append(f"in 8 bits the outputs are {far}, more than the {layers.tolerance:.3g} wanted")
        if (self.distance or 0) > _LOST:
            far = f"{self.distance:.0%} of their norm from the original's"
            said.append(f"in 8 bits the outputs are {far}: measure before use")
        return said

    def summary(self) -> dict[str, object]:
        """What was measured, as JSON data."""
        return {
            "bytes": len(self.content),
            "images": self.images,
            "difference": self.difference if self.difference is None or isfinite(self.difference) else None,
            "distance": self.distance,
            "held_out": self.held_out,
            "layers": self.layers.to_json(),
        }


@dataclass(frozen=True)
class InPrecision:
    """What became of one of the precisions that a budget allows.

    Attributes
    ----------
    precision
        Its name; of the plan of it that factors nothing ``int8 alone``, where that was too slow.
    measured
        Share of the dense network's time in single precision that its plan takes.
    kept
        Whether that keeps the target.
    distance
        Relative distance of its outputs from the original's on calibration images held out; None if there was no
        network, or outputs cannot be compared.
    unchanged
        Whether the target is kept by the network as it is, so that there was nothing to do.
    """

    precision: str
    measured: float
    kept: bool
    distance: float | None = None
    unchanged: bool = False

    def __str__(self) -> str:
        """The same in words."""
        if self.unchanged:
            return f"{self.precision} keeps it as it is"
        far = "" if self.distance is None else f", outputs {self.distance:.1%} from the original's"
        return f"{self.precision} {1 / self.measured:.2f}x faster{far if self.kept else ', too slow'}"


def quantize_network(
    model: nn.Module,
    original: nn.Module,
    plan: Plan,
    example: ExampleInputs,
    images: Calibration,
    fits: Fits | None = None,
) -> Int8Network:
    """A compressed network, fused as its plan says, in 8 bits but for the layers that lose most by it.

    Parameters
    ----------
    images
        The ranges are measured on those that are fitted to, the distances on those that are held out.
    fits
        Whether a file keeps the target; by default any does. The layers that the plan says stay in
        single precision (:func:`~tuckertree.io.export.mixed.quantize_sparingly`).

    Raises
    ------
    TuckertreeError
        If it cannot be exported or quantized.
    """
    fused, runtime = fuse_as_planned(model, plan), get_runtime(str(plan.rule.get("runtime", "onnxruntime")))
    with TemporaryDirectory(prefix="tuckertree-") as folder:
        path = Path(folder) / QUANTIZED
        some = min(len(images), images_for_int8(_tensors(example)[0]))
        # A batch as it is given: its size may be the only one that the network takes.
        first = _tensors(next(iter(images.part(0, some))))
        size = _write(rebalance_for_int8(fused, to_model(first, fused)), path, example)
        images, count = images.in_batches(size or _BATCH), _to_quantize_by(images)
        every: Iterable[Sample] = (_tensors(inputs) for inputs in images.part(0, count))
        held: list[Sample] = [_tensors(inputs) for inputs in images.part(held_out(len(images)), len(images))]
        start, unseen = None, True
        if size is not None:  # the file takes whole batches alone
            ranges, held = [_wholes(each, size) for each in (every, held)]
            unseen = bool(ranges and held)
            if not unseen:
                ranges, held = parted(_wholes(map(_tensors, images), size), divisible=False)
            ranges = ranges[: max(1, _IMAGES // size)]
            images, every, start = Calibration(held, size, example), ranges, 0
            count = size * len(ranges)
        layers = quantize(path, every, held, **_as_planned(plan, fits))
        runnable = get_runtime("onnxruntime").open(path)
        difference = difference_to(copy_for_inference(fused).cpu(), runnable.run, held[0] if held else first)
        del runnable
        loaded = Loaded(runtime.open(path))
        (distance,) = distances_held_out(original, [loaded], images, start)
        del loaded  # a file that is still open cannot be removed everywhere
        return Int8Network(path.read_bytes(), count, difference, distance, layers, unseen)


def _wholes(batches: Iterable[Sample], size: int) -> list[Sample]:
    return [batch for batch in batches if len(batch[0]) == size]


def _write(model: nn.Module, path: Path, example: ExampleInputs) -> int | None:
    """Write a network in single precision with a free batch; if it takes one alone, with that, which is given back."""
    try:
        export(model, path, example)
    except TuckertreeError:
        export(model, path, example, dynamic="none", overwrite=True)
        return len(_tensors(example)[0])
    return None


def quantize_file(
    proto: ModelProto,
    original: nn.Module,
    graph: Graph,
    plan: Plan,
    images: Calibration,
    fits: Fits | None = None,
) -> Int8Network:
    """The ONNX model that a file was compressed to, in 8 bits; images and the rest as of :func:`quantize_network`.

    Raises
    ------
    TuckertreeError
        If it cannot be quantized, or does not run then.
    """
    count = _to_quantize_by(images)

    def inputs(start: int, stop: int) -> Iterator[list[Tensor]]:
        for feed in feeds_of(images, start, stop):
            yield [torch.from_numpy(feed[name]) for name in graph.inputs]

    with TemporaryDirectory(prefix="tuckertree-") as folder:
        path = Path(folder) / QUANTIZED
        path.write_bytes(proto.SerializeToString())
        held = list(inputs(held_out(len(images)), len(images)))
        layers = quantize(path, inputs(0, count), held, **_as_planned(plan, fits))
        content = path.read_bytes()
    (distance,) = distances_held_out(original, [LoadedFile(Session(content))], images)
    return Int8Network(content, count, None, distance, layers)


def _as_planned(plan: Plan, fits: Fits | None) -> dict[str, Any]:
    """How a plan's network is quantized; one that misses its target has no time for layers in single precision."""
    missed = plan.latency is not None and plan.latency.missed
    return {
        "names": [layer.name for layer in plan.layers],
        "tolerance": inf if missed else INT8_TOLERANCE,
        "fits": fits,
        "fp32": plan.in_fp32,
    }


def _to_quantize_by(images: Calibration) -> int:
    return max(1, min(held_out(len(images)), _IMAGES))


def distances_held_out(
    original: nn.Module, models: Sequence[nn.Module], images: Calibration, start: int | None = None
) -> list[float | None]:
    """Relative distance of outputs from the original's on images held out, None where there is none.

    These are the last of the images, those from ``start`` on where it is given.
    """
    start = held_out(len(images)) if start is None else start
    try:
        found = output_distances(original, models, images, start=start)
    except IncomparableError:
        return [None] * len(models)
    return [distance if isfinite(distance) else None for distance in found]


def check_positional(example: ExampleInputs) -> None:
    """Refuse a network that cannot be quantized: one that takes inputs by keyword.

    Raises
    ------
    UsageError
        If it is one.
    """
    if isinstance(example, Mapping) or not all(isinstance(x, Tensor) and x.ndim for x in _listed(example)):
        raise UsageError("int8 is for networks that are called with tensors by position")


def _listed(inputs: ExampleInputs) -> Sequence[Tensor]:
    return [inputs] if isinstance(inputs, Tensor) else list(inputs)  # type: ignore[arg-type]


def _tensors(inputs: ExampleInputs) -> list[Tensor]:
    check_positional(inputs)
    return [x.detach().cpu() for x in _listed(inputs)]
