"""Gathering the second moments of layers' inputs while images stream through the network."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, suppress
from math import prod
from typing import Any, NamedTuple
from warnings import warn
from zlib import crc32

import torch
from torch import Tensor, nn

from tuckertree._base.progress import ProgressCallback, no_progress
from tuckertree.calibration.moment import InputSecondMoment, MomentSum, moment_bytes
from tuckertree.calibration.patches import (
    choose_positions,
    input_patches,
    output_sizes,
)
from tuckertree.calibration.sources import Calibration, CalibrationData, CalibrationWarning, to_model
from tuckertree.core.layers import LayerSpec
from tuckertree.core.layers.product import is_transformed
from tuckertree.measure import ExampleInputs, run, watch_call
from tuckertree.measure.control_flow import ControlFlow, control_flow_here, followed
from tuckertree.planning import Layer

MEMORY = 512 * 2**20
POSITIONS = 64
BLOCK = 2**23  # patches are made at most so many numbers at a time: 32 MiB in float32


def collect_moments(
    model: nn.Module,
    layers: Sequence[Layer],
    images: CalibrationData | Calibration,
    *,
    memory: int = MEMORY,
    positions: int = POSITIONS,
    seed: int = 0,
    tick: ProgressCallback = no_progress,
) -> Iterator[tuple[Layer, InputSecondMoment]]:
    """Gather the moments of layers, a chunk of layers in each pass over the images.

    Parameters
    ----------
    model
        The model; it runs in evaluation mode and is left as it was.
    layers
        Layers of it, in the order of the forward.
    images
        See :class:`~tuckertree.calibration.sources.Calibration`.
    memory
        Bytes that the moments of a chunk may take together. A layer whose moment alone takes more is left
        out, with a warning. What comes on top is one block of patches and the network's own activations.
    positions
        At most so many output positions of each image, chosen at random for each batch.
    seed
        Of that choice; each layer has its own, so the chunks do not matter.

    Yields
    ------
    layer, moment
        Once a chunk is complete. Keep no more of them than there is memory for.

    Raises
    ------
    TuckertreeError
        If the images cannot be used, or a layer's input holds NaN or infinite values.

    Warns
    -----
    CalibrationWarning
        If there are fewer patches than unknowns in some layers; their moments are shrunk.
    """
    few: list[str] = []
    for chunk in moment_chunks(
        model, layers, images, memory=memory, positions=positions, seed=seed, tick=tick
    ):
        while chunk:
            layer, moment = chunk.pop(0)
            if moment.few:
                few.append(layer.name)
            yield layer, moment.shrunk() if moment.few else moment
    warn_of_few(few)


def moment_chunks(
    model: nn.Module,
    layers: Sequence[Layer],
    images: CalibrationData | Calibration,
    *,
    memory: int = MEMORY,
    positions: int = POSITIONS,
    seed: int = 0,
    tick: ProgressCallback = no_progress,
) -> Iterator[list[tuple[Layer, InputSecondMoment]]]:
    """Gather moments as :func:`collect_moments` does, a chunk at a time, as they are: not shrunk."""
    images = Calibration(images)
    chunks = chunks_within(layers, memory)
    for number, chunk in enumerate(chunks):
        sums = {layer.name: MomentSum(layer.spec) for layer in chunk}
        choices = {layer.name: PositionChoice(layer.name, positions, seed) for layer in chunk}
        for done, inputs in enumerate(images):
            for seen in captured_inputs(model, chunk, inputs):
                total, chosen = sums[seen.name], choices[seen.name].choose(seen.size_out)
                for (patches,) in patch_blocks((seen.x,), total.spec, seen.size_out, chosen):
                    total.add(patches, seen.name)
            tick(f"moments {number + 1}/{len(chunks)}", done + 1, images.batches)
        yield [(layer, sums.pop(layer.name).result(layer.name)) for layer in chunk]


def warn_of_few(names: Sequence[str]) -> None:
    """Warn once of all layers that saw fewer patches than they have unknowns."""
    if names:
        shown = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
        warn(
            f"fewer calibration patches than unknowns in {len(names)} layers ({shown}): their moments are "
            "shrunk; more images would do better",
            CalibrationWarning,
            stacklevel=3,
        )


def chunks_within(layers: Sequence[Layer], memory: int, copies: int = 1, folds: int = 1) -> list[list[Layer]]:
    """Divide layers, in their order, into chunks whose moments fit in ``memory``, ``copies`` of all :func:`folds_within`.

    Warns
    -----
    CalibrationWarning
        Naming layers that do not fit alone; they are in no chunk.
    """
    chunks: list[list[Layer]] = []
    left = 0
    too_large = [layer.name for layer in layers if copies * moment_bytes(layer.spec) > memory]
    if too_large:
        warn(
            f"the moments of {', '.join(too_large)} do not fit in {memory / 2**20:.0f} MiB: these layers are "
            "not calibrated",
            CalibrationWarning,
            stacklevel=3,
        )
    for layer in layers:
        if layer.name in too_large:
            continue
        size = copies * moment_bytes(layer.spec) * folds_within(layer, memory, copies, folds)
        if size > left or not chunks:
            chunks.append([])
            left = memory
        chunks[-1].append(layer)
        left -= size
    return chunks


def folds_within(layer: Layer, memory: int, copies: int, folds: int) -> int:
    """So many ``folds`` if a layer's moments fit in ``memory`` for each; otherwise two, which may take twice as much."""
    return folds if folds * copies * moment_bytes(layer.spec) <= memory else min(folds, 2)


class PositionChoice:
    """Output positions of one layer, batch after batch; the same ones whatever else is gathered."""

    def __init__(self, name: str, count: int, seed: int) -> None:
        self._count = count
        self._generator = torch.Generator().manual_seed(seed + crc32(name.encode()))

    def choose(self, size_out: Sequence[int]) -> Tensor:
        """See :func:`~tuckertree.calibration.patches.choose_positions`."""
        return choose_positions(size_out, self._count, self._generator)


def patch_blocks(
    inputs: Sequence[Tensor], spec: LayerSpec, size_out: Sequence[int], positions: Tensor
) -> Iterator[list[Tensor]]:
    """Patches of one or more inputs at the same positions, a few images at a time."""
    if not inputs[0].numel():
        return  # no rows were chosen
    batched = [x if x.ndim > max(spec.order + 1, 1) else x.unsqueeze(0) for x in inputs]
    images = max(1, BLOCK // max(spec.in_channels * prod(spec.kernel_size) * len(positions), 1))
    for parts in zip(*(x.split(images) for x in batched), strict=True):
        yield [input_patches(part, spec, size_out, positions) for part in parts]


class Captured(NamedTuple):
    """What went into a layer at one call.

    Attributes
    ----------
    name
        Of the layer.
    x
        Its input.
    size_out
        Spatial sizes of its output; for a linear layer the number of positions.
    control_flow
        Digest of the control flow of the forward pass so far (:mod:`~tuckertree.measure.control_flow`); 0 if nobody asked.
    continues
        Whether it is a further part of the batch that the call before is of.
    """

    name: str
    x: Tensor
    size_out: tuple[int, ...]
    control_flow: int = 0
    continues: bool = False


def captured_inputs(
    model: nn.Module, layers: Sequence[Layer], inputs: ExampleInputs, following: Collection[str] = ()
) -> list[Captured]:
    """Inputs and output sizes of layers at every call, by one forward pass that ends after the last of them.

    Parameters
    ----------
    following
        All layers that may differ between two networks, if the control flow of their forward passes matters.

    Raises
    ------
    TuckertreeError
        If the model does not run on the images.
    """
    calls: list[Captured] = []
    left = {layer.name: max(1, len(layer.calls)) for layer in layers}

    def hook(layer: Layer) -> Any:
        def keep(x: Tensor, output: Tensor) -> None:
            if is_transformed() or x.is_nested:
                return  # its values cannot be had
            x = x.detach().clone()  # what follows may change it in place
            calls.append(Captured(layer.name, x, output_sizes(output, layer.spec), control_flow_here()))
            left[layer.name] -= 1
            if all(count <= 0 for count in left.values()):
                raise EnoughError

        return keep

    with ExitStack() as ending:
        for layer in layers:
            ending.callback(watch_call(model.get_submodule(layer.name), hook(layer)).remove)
        ending.enter_context(suppress(EnoughError))
        if following:
            ending.enter_context(followed(model, following))
            ending.enter_context(ControlFlow())
        run(model, to_model(inputs, model), "the calibration images")
    return calls


class EnoughError(BaseException):
    """Ends a forward pass; no ``except Exception`` of the model's own may take it for a failure."""
