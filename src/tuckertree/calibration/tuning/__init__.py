"""Tuning a whole compressed network against the original, on unlabelled images.

Fitting goes from layer to layer, once. Here all layers change together by gradient steps on the distance of outputs and
features from the original's (:mod:`tuckertree.calibration.tuning.loss`), as MiR (arXiv 2201.02620) and PRACTISE
(arXiv 2202.07861) do. A few ways are tried for a few steps; the best goes on. What counts is the distance of the outputs
on images that are held out: the best state by it is kept, and the network stays as it was where there is none better.
"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from warnings import warn

from torch import nn

from tuckertree._base.errors import TuckertreeError, UsageError
from tuckertree._base.progress import ProgressCallback, no_progress
from tuckertree.calibration.sources import Calibration, CalibrationData, CalibrationWarning, to_model
from tuckertree.calibration.tuning.images import TuningImages, usual_size
from tuckertree.calibration.tuning.loss import Imitation
from tuckertree.calibration.tuning.parts import NO_DERIVATIVE, tunable
from tuckertree.calibration.tuning.record import Length, Tuning, Way
from tuckertree.calibration.tuning.resuming import Checkpoint, identity
from tuckertree.calibration.tuning.run import TuningRun
from tuckertree.measure import copy_model, preserved
from tuckertree.planning import Plan

__all__ = ["Length", "Tuning", "Way", "check_tunable", "learned_images", "tune_network"]


def tune_network(
    model: nn.Module,
    original: nn.Module,
    images: CalibrationData | Calibration,
    length: Length,
    *,
    plan: Plan | None = None,
    seed: int = 0,
    batch_size: int | None = None,
    way: Way | None = None,
    checkpoint: Path | None = None,
    tick: ProgressCallback = no_progress,
) -> tuple[nn.Module, Tuning]:
    """Tune a compressed network; see :func:`tuckertree.tune`.

    Parameters
    ----------
    model, original
        The compressed and the dense network; neither is changed.
    images
        Without labels.
    length
        Steps, or time.
    plan
        Says which layers were left out; without it only those that are frozen are kept.
    seed
        Of the order of the images and how they are moved.
    batch_size
        By default 64; 16 of images that are large or much work.
    way
        How to make steps; by default that of a few which is best on the images held out.
    checkpoint
        A file for the state of the run, which goes on from it if it is there. It is removed when the run has ended.

    Returns
    -------
    tuple[torch.nn.Module, Tuning]
        A copy, and what was done. Where nothing was gained the copy is equal to ``model`` to the bit.

    Raises
    ------
    UsageError
        If the checkpoint is of another run.
    TuckertreeError
        If the networks do not belong together, do not run on the images, or have no outputs that can be compared or
        differentiated; or the checkpoint cannot be read or written.

    Warns
    -----
    CalibrationWarning
        If nothing was gained, or the run ended early.
    """
    if batch_size is not None and batch_size < 1:
        raise UsageError(f"a batch holds at least one image, not {batch_size}")
    began = time.perf_counter()
    with preserved(original):
        images = Calibration(images)
        size = batch_size or usual_size(original, images)
        parts = TuningImages(images, size)
        run = TuningRun(model, original, parts, plan, seed, tick)
        kept = Checkpoint(
            checkpoint, {} if checkpoint is None else identity(length, seed, model, original, parts)
        )
        tuning = run.tune(length, way, kept)
        result = run.result()
    if not tuning.interrupted:
        kept.remove()
    tuning = replace(tuning, seconds=round(time.perf_counter() - began, 3))
    if tuning.note:
        warn(f"tuning: {tuning}", CalibrationWarning, stacklevel=3)
    return result, tuning


def check_tunable(model: nn.Module, images: Calibration) -> None:
    """Refuse, before any work is done for it, a network that cannot be tuned.

    Raises
    ------
    TuckertreeError
        If it has no floating-point outputs, or no derivative leads from them to its weights.
    """
    twin = copy_model(model)
    for parameter in twin.parameters():
        parameter.requires_grad_(parameter.is_floating_point())
    first = to_model(next(iter(images.in_batches(2))), twin)
    with preserved(twin), tunable(twin, []):
        if not Imitation(twin, first).loss(twin, first).requires_grad:
            raise TuckertreeError(NO_DERIVATIVE)


def learned_images(original: nn.Module, images: Calibration) -> Calibration:
    """The images that :func:`tune_network` learns from: all where there is but one.

    Who fits a network to these alone before it is tuned leaves the images held out as a measure of both.
    """
    parts = TuningImages(images, usual_size(original, images))
    return parts.learned if len(parts) else images
