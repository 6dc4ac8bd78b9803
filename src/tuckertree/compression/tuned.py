"""tune(): a compressed network brought nearer to its original by minutes of unlabelled images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from tuckertree._base.errors import UsageError
from tuckertree._base.progress import progress_bar
from tuckertree.calibration import Calibration, CalibrationData, Length, check_images, tune_network
from tuckertree.calibration.sources import to_model
from tuckertree.compression.int8 import quantize_network
from tuckertree.compression.int8_timed import plan_of
from tuckertree.compression.measures import Stopwatch, measure_errors
from tuckertree.compression.result import CompressionResult
from tuckertree.io.sizes import Size
from tuckertree.latency import is_int8
from tuckertree.measure import ExampleInputs
from tuckertree.network.surgery import is_compressed, to_dense
from tuckertree.planning import take_inventory

Tunable = TypeVar("Tunable", CompressionResult, nn.Module)


def tune(
    network: Tunable,
    original: nn.Module | None,
    images: CalibrationData,
    *,
    minutes: float | None = None,
    steps: int | None = None,
    seed: int = 0,
    batch_size: int | None = None,
    checkpoint: str | Path | None = None,
    progress: bool | None = None,
) -> Tunable:
    """Tune a whole compressed network against its original, without labels, for minutes.

    All layers change together by gradient steps that lessen the distance of outputs, and of features at the ends of blocks,
    from the original's. A few ways to make steps are tried for a short while, and the boldest that loses little goes on:
    from the network as it is, and where its plan is known from layers that do not make up for each other's errors. The
    last fifth of the images takes no part: by the distance of the outputs on it the best state is kept, and where none
    is better than the network given, nothing changes. Parameters that are frozen and layers that were left out stay as
    they are, to the bit.

    Parameters
    ----------
    network
        What :func:`~tuckertree.compress` gave, of a torch model or of an ONNX file; or a compressed model. It is not
        changed.
    original
        The model before it was compressed; it is not changed. A result of an ONNX file holds its own: None.
    images
        As for the calibration, without labels; a few hundred. Images that calibration has not seen tell more.
    minutes, steps
        How long; one of the two. Minutes become steps by the time of the first ones, and the number is recorded: the
        same steps and seed give the same network.
    seed
        Of the order of the images, and of how they are mirrored and shifted where a network classifies colour images.
    batch_size
        By default 64, and 16 of images that are large or much work; what a file prescribes.
    checkpoint
        A file in which the run is kept twenty times on the way. The same call goes on from it when it was interrupted, to
        the same bits as without a break; it is removed when the run has ended.
    progress
        Draw a progress bar on stderr; by default where stderr is a terminal.

    Returns
    -------
    CompressionResult or torch.nn.Module
        As was given, tuned. What was done is in :attr:`CompressionResult.tuning`. If it is interrupted, the best state
        so far.

    Raises
    ------
    UsageError
        If neither minutes nor steps are given, or both, or one of a value it cannot have; or the checkpoint is of
        another run.
    TuckertreeError
        If the networks do not belong together or do not run on the images, or the outputs cannot be compared or
        differentiated; or the checkpoint cannot be read or written.

    Warns
    -----
    CalibrationWarning
        If nothing was gained, or tuning ended early.

    Examples
    --------
    >>> import torch, tuckertree as tt
    >>> from tuckertree.calibration import output_distances
    >>> seed = torch.manual_seed(0)
    >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 32, 3), torch.nn.ReLU(), torch.nn.Conv2d(32, 64, 3)).eval()
    >>> images = torch.randn(40, 3, 12, 12)
    >>> result = tt.compress(model, images[:1], tt.Budget(params=0.3))
    >>> tuned = tt.tune(result, model, images, steps=40)
    >>> before, after = output_distances(model, (result.model, tuned.model), images)
    >>> after < before, tuned.tuning.after < tuned.tuning.before
    (True, True)
    """
    length = Length(steps, None if minutes is None else 60 * minutes)
    result = network if isinstance(network, CompressionResult) else None
    model: nn.Module = network.model if isinstance(network, CompressionResult) else network
    output = result.output if result else None
    if result is not None and is_int8(result.plan) and output is not None:
        raise UsageError(
            "a file in 8 bits cannot be tuned; tune as it is compressed: compress(..., tune=...)"
        )
    original = original_of(result, original)
    given = images_for(result, images)
    first = next(iter(given))
    check_images(original, given, first)
    stopwatch = Stopwatch()
    with progress_bar(progress) as tick:
        tuned, tuning = tune_network(
            model,
            original,
            given,
            length,
            plan=result.plan if result else None,
            seed=seed,
            batch_size=batch_size,
            checkpoint=None if checkpoint is None else Path(checkpoint),
            tick=tick,
        )
    if not isinstance(network, CompressionResult):
        return tuned
    stopwatch.lap("tuning")
    output = output.with_module(tuned) if output else None
    int8, plan, example = None, network.plan, _example(network.input_size)
    if is_int8(plan) and example is not None:
        int8 = quantize_network(tuned, original, plan, example, given)
        plan = plan_of(int8, plan)
    layers = take_inventory(original, to_model(first, original)).layers
    errors, relative_error = measure_errors(original, tuned, layers)
    return replace(
        network,
        model=tuned,
        plan=plan,
        errors=errors,
        relative_error=relative_error,
        seconds={**network.seconds, **stopwatch.seconds},
        output=output,
        tuning=tuning,
        accuracy=None,
        int8=int8,
    )


def original_of(result: CompressionResult | None, original: nn.Module | None) -> nn.Module:
    """The dense network that one was made from: that of the ONNX file, or the one given.

    Raises
    ------
    UsageError
        If there is none.
    """
    original = result.output.original if result and result.output else original
    if original is None:
        raise UsageError("give the original network too, which the compressed one is to be like")
    return to_dense(original) if is_compressed(original) else original


def images_for(result: CompressionResult | None, images: CalibrationData) -> Calibration:
    """Images in the form that a result's network takes."""
    if result and result.output:
        return result.output.images(images)
    return Calibration(images, example=_example(result.input_size) if result else None)


def _example(size: Size | None) -> ExampleInputs | None:
    """Inputs of the form that a result remembers."""
    if size is None:
        return None
    if isinstance(size, dict):
        inputs: dict[str, Tensor] = {name: torch.zeros(1, *each) for name, each in size.items()}
        return inputs
    return torch.zeros(1, *size)
