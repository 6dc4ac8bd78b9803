"""A compressed network as an ONNX file in 8 bits, and which precision is nearest to the original."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import inf, isfinite
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from tuckertree._base.errors import UsageError
from tuckertree.calibration import Calibration, output_distances
from tuckertree.calibration.batchnorm import held_out
from tuckertree.calibration.distances import IncomparableError
from tuckertree.compression.onnx_batches import feeds_of
from tuckertree.io.export import export
from tuckertree.io.folder import QUANTIZED
from tuckertree.latency import fuse_as_planned
from tuckertree.measure import ExampleInputs
from tuckertree.network.onnx.graph import Graph
from tuckertree.network.onnx.runtime import Session
from tuckertree.planning import Plan
from tuckertree.runtimes import Runnable, get_runtime, quantized

if TYPE_CHECKING:
    from onnx import ModelProto

_BATCH, _IMAGES = 32, 256
"""Images at a time, and at most, that the ranges of activations are measured by."""
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
    """

    content: bytes
    images: int
    difference: float | None
    distance: float | None

    def lines(self) -> list[str]:
        """What there is to say of it."""
        found = [f"{len(self.content) / 1e6:.2f} MB, quantized by {self.images} images"]
        if self.distance is not None:
            found.append(f"outputs {self.distance:.1%} from the original's on images held out")
        if self.difference is not None:
            found.append(f"at most {self.difference:.2g} of the largest from those in fp32")
        return [f"int8        {', '.join(found)}"]

    def warnings(self) -> list[str]:
        """Reasons to doubt that it is of use."""
        if self.difference is not None and not isfinite(self.difference):
            return ["in 8 bits the outputs are not finite: do not use the file"]
        if (self.distance or 0) <= _LOST:
            return []
        return [
            f"in 8 bits the outputs are {self.distance:.0%} of their norm from the original's: measure before use"
        ]

    def summary(self) -> dict[str, object]:
        """What was measured, as JSON data."""
        return {
            "bytes": len(self.content),
            "images": self.images,
            "difference": self.difference if self.difference is None or isfinite(self.difference) else None,
            "distance": self.distance,
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
    """

    precision: str
    measured: float
    kept: bool
    distance: float | None = None

    def __str__(self) -> str:
        """The same in words."""
        far = "" if self.distance is None else f", outputs {self.distance:.1%} from the original's"
        return f"{self.precision} {1 / self.measured:.2f}x faster{far if self.kept else ', too slow'}"


def quantize_network(
    model: nn.Module, original: nn.Module, plan: Plan, example: ExampleInputs, images: Calibration
) -> Int8Network:
    """A compressed network, fused as its plan says, in 8 bits.

    Parameters
    ----------
    images
        The ranges are measured on those that are fitted to, the distance on those that are held out.

    Raises
    ------
    TuckertreeError
        If it cannot be exported or quantized.
    """
    count = _to_quantize_by(images)
    batches = (few for inputs in images.part(0, count) for few in _tensor(inputs).split(_BATCH))
    with TemporaryDirectory(prefix="tuckertree-") as folder:
        path = Path(folder) / QUANTIZED
        # What 8 bits cost is measured on images that were held out, and said.
        done = export(fuse_as_planned(model, plan), path, example, calibration=batches, tolerance=inf)
        runnable = get_runtime(str(plan.rule.get("runtime", "onnxruntime"))).open(path)
        (distance,) = distances_held_out(original, [_Loaded(runnable)], images)
        del runnable  # a file that is still open cannot be removed everywhere
        return Int8Network(path.read_bytes(), count, done.difference, distance)


def quantize_file(proto: ModelProto, original: nn.Module, graph: Graph, images: Calibration) -> Int8Network:
    """The ONNX model that a file was compressed to, in 8 bits; images as of :func:`quantize_network`.

    Raises
    ------
    TuckertreeError
        If it cannot be quantized, or does not run then.
    """
    count = _to_quantize_by(images)
    batches = ([torch.from_numpy(feed[name]) for name in graph.inputs] for feed in feeds_of(images, count))
    content = quantized(proto, batches).SerializeToString()
    (distance,) = distances_held_out(original, [_Session(Session(content))], images)
    return Int8Network(content, count, None, distance)


def _to_quantize_by(images: Calibration) -> int:
    return max(1, min(held_out(len(images)), _IMAGES))


def distances_held_out(
    original: nn.Module, models: Sequence[nn.Module], images: Calibration
) -> list[float | None]:
    """Relative distance of outputs from the original's on images held out, None where there is none."""
    try:
        found = output_distances(original, models, images, start=held_out(len(images)))
    except IncomparableError:
        return [None] * len(models)
    return [distance if isfinite(distance) else None for distance in found]


def check_single_input(example: ExampleInputs) -> None:
    """Refuse a network that cannot be quantized: of several inputs, or of such by keyword.

    Raises
    ------
    UsageError
        If it is one.
    """
    if not isinstance(example, Tensor) and not (isinstance(example, list | tuple) and len(example) == 1):
        raise UsageError("int8 is for networks with one input, a tensor by position")


def _tensor(inputs: ExampleInputs) -> Tensor:
    check_single_input(inputs)
    found: Iterator[Tensor] = iter([inputs] if isinstance(inputs, Tensor) else inputs)  # type: ignore[arg-type]
    return next(found).detach().cpu()


class _Loaded(nn.Module):
    """What a runtime has loaded, as a module."""

    def __init__(self, runnable: Runnable) -> None:
        super().__init__()
        self._runnable = runnable

    def forward(self, x: Tensor) -> list[Tensor]:
        return [output.to(x.device) for output in self._runnable.run([x])]


class _Session(nn.Module):
    """An ONNX model in ONNX Runtime, called by the names of its inputs."""

    def __init__(self, session: Session) -> None:
        super().__init__()
        self._session = session

    def forward(self, **inputs: Tensor) -> list[Tensor]:
        found = self._session.run({name: x.cpu().numpy() for name, x in inputs.items()})
        return [torch.from_numpy(output) for output in found.values()]
