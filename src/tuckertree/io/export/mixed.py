"""8 bits where they cost little: layers that lose most of the outputs by them stay in single precision."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf, isfinite
from typing import Any

from torch import Tensor

from tuckertree.calibration.distances import IncomparableError, squared_error
from tuckertree.runtimes import get_runtime
from tuckertree.runtimes.quantization import WITH_WEIGHTS, Quantizer

INT8_TOLERANCE = 0.1
"""Relative distance of the outputs that 8 bits may cost unless another is asked for."""
_NAMED = 12
"""Layers that are named in words."""
_ENDING = re.compile(r"[./](weight|kernel|W)$")
_STEP = re.compile(r"[./][^./]*$")


@dataclass(frozen=True)
class Int8Layers:
    """Which layers of a model are in 8 bits, and what that costs.

    Attributes
    ----------
    layers
        Names of all layers with weights, in the order of the model.
    fp32
        Those that stay in single precision, the most sensitive first.
    distance
        Relative distance of the outputs from those in single precision; None where outputs cannot be compared.
    whole
        The same with all layers in 8 bits.
    losses
        The same with each layer alone in 8 bits; empty where all of them are near enough.
    tolerance
        The distance that was wanted at most; infinite where any is taken.
    """

    layers: tuple[str, ...]
    fp32: tuple[str, ...] = ()
    distance: float | None = None
    whole: float | None = None
    losses: Mapping[str, float] = field(default_factory=dict)
    tolerance: float = inf

    @property
    def too_far(self) -> bool:
        """Whether the distance is more than was wanted."""
        return self.distance is not None and self.distance > self.tolerance

    def lines(self) -> list[str]:
        """The same in words."""
        count = f"{len(self.layers)} layers"
        said = f"all {count} in 8 bits" if not self.fp32 else f"{len(self.fp32)} of {count} stay in fp32"
        if self.distance is not None:
            beside = f", with all in 8 bits {self.whole:.1%}" if self.fp32 and self.whole is not None else ""
            allowed = f" ({self.tolerance:.3g} allowed)" if isfinite(self.tolerance) else ""
            if self.too_far:
                allowed = f" (more than the {self.tolerance:.3g} wanted)"
            said += f": outputs {self.distance:.1%} from those in fp32{allowed}{beside}"
        names = ", ".join(self.fp32[:_NAMED]) + (", ..." if len(self.fp32) > _NAMED else "")
        return [f"layers      {said}", *([f"in fp32     {names}"] if names else [])]

    def to_json(self) -> dict[str, object]:
        """The same as JSON data."""
        return {
            "layers": len(self.layers),
            "fp32": list(self.fp32),
            "distance": _finite(self.distance),
            "whole": _finite(self.whole),
            "losses": {name: _finite(loss) for name, loss in self.losses.items()},
        }


def quantize_sparingly(
    quantizer: Quantizer,
    samples: Sequence[Sequence[Tensor]],
    *,
    names: Collection[str] = (),
    tolerance: float = INT8_TOLERANCE,
    fits: Callable[[Any], bool] | None = None,
    fp32: Collection[str] | None = None,
) -> tuple[Any, Int8Layers]:
    """Quantize a model in all layers but those that cost most, the fewest with which its outputs stay near enough.

    Where all layers in 8 bits are near enough nothing else is tried. If not, the model runs with each layer alone in 8
    bits, which is with weights, inputs and outputs rounded, and what follows it up to the next layer too. By what
    that costs layers go back to single precision, the costliest first; how many it takes is found by bisection with the
    quantized model itself.

    Parameters
    ----------
    quantizer
        The model and the ranges of its activations.
    samples
        Inputs that the ranges were not measured on, each in the order of the model's.
    names
        Names of layers, such as modules: what a weight belongs to, several of a chain to one layer. Others are called
        as their weight or their node.
    tolerance
        Relative distance of the outputs from those in single precision that is near enough.
    fits
        Whether a quantized model is fast enough. Where the one that is near enough is not, fewer layers stay in single
        precision: as many as fit.
    fp32
        Names of the layers that stay in single precision, if that is known already; then nothing is tried, unless the model has
        layers of other names than those given, or ``fits`` says how many may stay and the outputs are not near enough.

    Returns
    -------
    tuple
        The ``onnx.ModelProto``, and which layers are in 8 bits. Its distance is above the tolerance where even one
        layer in 8 bits is too much, or what is near enough does not fit.

    Raises
    ------
    TuckertreeError
        If the model cannot be quantized, or does not run.
    """
    layers = layers_of(quantizer.model, quantizer.unsuited, names)
    stay = tuple(name for name in layers if name in (fp32 or ()))
    every = _but(quantizer, layers, stay)
    try:
        distance_of = _distances(quantizer.model, samples)
        whole = distance_of(every)
    except IncomparableError:
        return every, Int8Layers(tuple(layers), stay)
    if fp32 is not None and (whole <= tolerance or (fits is None and layers.keys() <= {*names})):
        return every, Int8Layers(tuple(layers), stay, whole, tolerance=tolerance)
    if stay:  # they are decided anew
        every = _but(quantizer, layers, ())
        whole = distance_of(every)
    if whole <= tolerance or len(layers) < 2:
        return every, Int8Layers(tuple(layers), (), whole, whole, tolerance=tolerance)
    losses = {name: distance_of(_but(quantizer, layers, layers.keys() - {name})) for name in layers}
    order = sorted(losses, key=lambda name: -losses[name])
    made, distances = {0: every}, {0: whole}

    def is_near(count: int) -> bool:
        made[count] = _but(quantizer, layers, order[:count])
        distances[count] = distance_of(made[count])
        return distances[count] <= tolerance

    count = _least(is_near, len(order) - 1)
    if fits is not None and count and not fits(made[count]):

        def is_slow(count: int) -> bool:
            made[count] = _but(quantizer, layers, order[:count])
            return not fits(made[count])

        count = _least(is_slow, count) - 1
        distances[count] = distance_of(made[count])
    found = Int8Layers(tuple(layers), tuple(order[:count]), distances[count], whole, losses, tolerance)
    return made[count], found


def layers_of(
    proto: Any, unsuited: Collection[str] = (), names: Collection[str] = ()
) -> dict[str, tuple[str, ...]]:
    """The nodes of each layer of a model: those with its weights, and what follows up to the next layer.

    Parameters
    ----------
    proto
        The model, with names of all nodes.
    unsuited
        Names of nodes that belong to none.
    names
        As of :func:`quantize_sparingly`.
    """
    constants = {tensor.name for tensor in proto.graph.initializer}
    found, latest = dict[str, list[str]](), dict[str, int]()
    for node in proto.graph.node:
        before = max((latest[name] for name in node.input if name in latest), default=0)
        if node.op_type in WITH_WEIGHTS and node.name not in unsuited:
            name = _layer_name(node, constants, names)
            found.setdefault(name, []).append(node.name)
            before = [*found].index(name)
        latest.update(dict.fromkeys(node.output, before))
    owners = [*found]
    for node in proto.graph.node:
        if owners and node.op_type not in WITH_WEIGHTS and node.name not in unsuited and node.output:
            found[owners[latest[node.output[0]]]].append(node.name)
    return {name: tuple(nodes) for name, nodes in found.items()}


def _layer_name(node: Any, constants: Collection[str], names: Collection[str]) -> str:
    """The layer that a node belongs to: a known name, or as its weight is called, or itself."""
    props = {prop.key: prop.value for prop in node.metadata_props}
    *scopes, _ = re.findall(
        r"'([^']*)'", props.get("pkg.torch.onnx.name_scopes", "''")
    )  # the last is the node
    given = [name for name in node.input[1:2] if name in constants]
    weights = [_ENDING.sub("", name) for name in given if _ENDING.search(name)]
    for text in (node.name, *given, *reversed(scopes)):
        while text:
            if text in names:
                return text
            shorter = _STEP.sub("", text)
            text = shorter if shorter != text else ""
    return weights[0] if weights and not names else str(node.name)


def _but(quantizer: Quantizer, layers: Mapping[str, tuple[str, ...]], fp32: Collection[str]) -> Any:
    return quantizer.quantized([node for name in fp32 for node in layers[name]])


def _least(holds: Callable[[int], bool], most: int) -> int:
    """The least number from 1 on for which something holds, which does for all larger ones; ``most`` if for none below."""
    low, high = 1, most
    while low < high:
        middle = (low + high) // 2
        if holds(middle):
            high = middle
        else:
            low = middle + 1
    holds(low)
    return low


def _distances(proto: Any, samples: Sequence[Sequence[Tensor]]) -> Callable[[Any], float]:
    """Gives the relative distance of a model's outputs from those of this one."""
    if not samples:
        raise IncomparableError("there are no inputs to compare outputs on")
    runtime = get_runtime("onnxruntime")

    def outputs(model: Any) -> list[list[Tensor]]:
        runnable = runtime.load_onnx(model.SerializeToString())  # type: ignore[attr-defined]
        every = (runnable.run(sample) for sample in samples)
        return [[y.float() for y in found if y.is_floating_point()] for found in every]

    wanted = outputs(proto)

    def distance(model: Any) -> float:
        errors = [squared_error(y, [z]) for y, z in zip(wanted, outputs(model), strict=True)]
        whole, lost = sum(norm for norm, _ in errors), sum(error for _, (error,) in errors)
        value = (lost / whole) ** 0.5 if whole else lost
        return value if isfinite(value) else inf

    return distance


def _finite(value: float | None) -> float | None:
    return value if value is not None and isfinite(value) else None
