"""finetune() and train(): settings, images and a network in, a trained network out."""

from __future__ import annotations

import contextlib
import tempfile
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tuckertree._base.checkpoints import read_checkpoint
from tuckertree._base.errors import DivergedError, TuckertreeError, UsageError, argument
from tuckertree._base.progress import progress_bar
from tuckertree.calibration.balancing import rebalance
from tuckertree.compression import CompressionResult
from tuckertree.measure import copy_model, environment
from tuckertree.planning import Plan
from tuckertree.tools.data import ImageSet, ImageStream, Preprocessing, open_training
from tuckertree.tools.models import build, resolve
from tuckertree.tools.settings import STARTED_APART, Settings
from tuckertree.tools.training.admm import make_admm
from tuckertree.tools.training.checkpoints import EPOCH, STEP, identity, latest
from tuckertree.tools.training.checks import check_classes, check_device, check_teacher, split_validation
from tuckertree.tools.training.outcome import Outcome
from tuckertree.tools.training.quiet import load_lightning
from tuckertree.tools.training.sources import BatchSource, make_source
from tuckertree.tools.training.streams import StreamedImages


def finetune(
    compressed: CompressionResult | nn.Module,
    data: ImageSet | ImageStream | str | Path,
    settings: Settings,
    *,
    teacher: nn.Module | None = None,
    plan: Plan | None = None,
    validation: ImageSet | None = None,
    preprocessing: Preprocessing | None = None,
    output: str | Path | None = None,
    resume: bool = False,
    checkpoint_steps: int | None = None,
    device: str = "cpu",
    progress: bool | None = None,
) -> Outcome:
    """Train a compressed network further, if possible with the original one as its teacher.

    Parameters
    ----------
    compressed
        The result of :func:`tuckertree.compress`, or a model; it is not changed.
    data
        Labelled training images, or where they are: the training split is read, never the test split.
        ``hf:NAME?streaming`` reads a data set of the Hugging Face hub shard by shard, without keeping it: the
        order is shuffled within a buffer, each process and worker has shards of its own (so the order depends
        on their number too), and no images can be held back for validation.
    settings
        How to train.
    teacher
        The original network, for distillation; without it, or with ``distill=0``, labels alone count.
    plan
        With ``admm_rho`` in the settings: what a network that is still dense is to be compressed to
        afterwards, by :func:`tuckertree.apply`; it is trained towards these ranks.
    validation
        Images to look at after each epoch; by default the settings' share of the training images, which are
        then not trained on.
    preprocessing
        Where ``data`` is a path and the architecture has no name: how images become inputs.
    output
        Folder for checkpoints and TensorBoard logs (in ``logs``); without it there are none afterwards.
    resume
        Go on from the checkpoints in ``output``. On one CPU the final weights are, bit for bit, those of a run
        that was never interrupted.
    checkpoint_steps
        Write a checkpoint after so many steps of an epoch too, not at its end alone.
    device
        A torch device; with several ``devices`` its kind.
    progress
        Draw a progress bar on stderr; by default where stderr is a terminal.

    Returns
    -------
    Outcome
        The trained network, a copy, and how it came about.

    Raises
    ------
    UsageError
        If data and network do not fit, a split is missing, or a checkpoint is of another run; if one of
        ``plan`` and ``admm_rho`` is given without the other, or for a network that is compressed already or
        of which the plan is not.
    TuckertreeError
        If Lightning is not installed, images cannot be read, a checkpoint cannot be written, a process dies,
        or the loss becomes infinite in the first epoch.
    KeyboardInterrupt
        After Ctrl-C or SIGTERM, when a checkpoint has been written; with several processes that of the last epoch,
        or of ``checkpoint_steps``, stands.

    Examples
    --------
    >>> import torch, tuckertree as tt
    >>> model = tt.build("demo")
    >>> result = tt.compress(model, torch.zeros(1, 3, 32, 32), energy=0.8)
    >>> settings = tt.Settings(epochs=1, batch_size=16, lr=0.001, limit_train=32, validation=0)
    >>> tuned = tt.finetune(result, "demo", settings, teacher=model)
    >>> tuned.distilled, tuned.data
    (True, 'demo (train): 32 images, 0 for validation')
    """
    result = compressed if isinstance(compressed, CompressionResult) else None
    model = compressed.model if isinstance(compressed, CompressionResult) else compressed
    architecture = result.architecture if result else getattr(model, "architecture_name", None)
    outcome = _train(
        copy_model(model).to("cpu", torch.float32),
        _opened(data, preprocessing, architecture),
        settings,
        teacher=teacher if settings.distill else None,
        plan=plan,
        validation=validation,
        output=output,
        resume=resume,
        checkpoint_steps=checkpoint_steps,
        device=device,
        progress=progress,
    )
    if result is None:
        return outcome
    size, report = result.input_size, result.summary()
    return replace(outcome, plan=result.plan, architecture=architecture, input_size=size, report=report)


def train(
    model: nn.Module | str,
    data: ImageSet | ImageStream | str | Path,
    settings: Settings,
    *,
    plan: Plan | None = None,
    validation: ImageSet | None = None,
    preprocessing: Preprocessing | None = None,
    output: str | Path | None = None,
    resume: bool = False,
    checkpoint_steps: int | None = None,
    device: str = "cpu",
    progress: bool | None = None,
) -> Outcome:
    """Train a network from the weights it has, without a teacher.

    Parameters
    ----------
    model
        A network, or a name that :func:`tuckertree.build` knows, which is built with random weights that depend
        on the seed. The other parameters, and what is raised, are those of :func:`finetune`.

    Examples
    --------
    >>> import tuckertree as tt
    >>> settings = tt.Settings(epochs=2, batch_size=16, lr=0.01, limit_train=32, validation=0)
    >>> trained = tt.train("cifar10:resnet20", "demo", settings, progress=False)
    >>> first, last = (epoch["train_loss"] for epoch in trained.history)
    >>> last < first
    True
    """
    if isinstance(model, str):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed)
            model = build(model)
    architecture = getattr(model, "architecture_name", None)
    return _train(
        copy_model(model).to("cpu", torch.float32),
        _opened(data, preprocessing, architecture),
        settings,
        teacher=None,
        plan=plan,
        validation=validation,
        output=output,
        resume=resume,
        checkpoint_steps=checkpoint_steps,
        device=device,
        progress=progress,
    )


def _opened(
    data: ImageSet | ImageStream | str | Path, preprocessing: Preprocessing | None, name: str | None
) -> ImageSet | ImageStream:
    if isinstance(data, ImageSet | ImageStream):
        return data
    if preprocessing is None:
        if name is None:
            raise UsageError("give preprocessing, or an ImageSet: the network has no name to know it by")
        preprocessing = resolve(name).preprocessing
    return open_training(data, preprocessing)


def _train(
    network: nn.Module,
    images: ImageSet | ImageStream,
    settings: Settings,
    *,
    teacher: nn.Module | None,
    plan: Plan | None,
    validation: ImageSet | None,
    output: str | Path | None,
    resume: bool,
    checkpoint_steps: int | None,
    device: str,
    progress: bool | None,
) -> Outcome:
    load_lightning()
    if resume and output is None:
        raise UsageError("give the output folder whose checkpoints are to be resumed from")
    if settings.strategy in STARTED_APART and output is None:
        raise UsageError(
            f"processes that are started apart (strategy {settings.strategy}) need an output folder in common"
        )
    if checkpoint_steps is not None and checkpoint_steps < 1:
        raise UsageError(f"checkpoint_steps must be at least 1, not {checkpoint_steps}")
    check_device(device, settings)
    admm = make_admm(network, plan, settings)
    train_images, validation = split_validation(images, settings, validation)
    classes = check_classes(network, train_images)
    if validation is not None:
        check_classes(network, validation)
    if teacher is not None:
        teacher = copy_model(teacher).to("cpu", torch.float32)
        check_teacher(teacher, network, train_images)
    held = 0 if validation is None else len(validation)
    described = f"{images.source}: {len(train_images)} images, {held} for validation"
    wanted = identity(settings, network, teacher, described, plan)
    if (
        settings.balance_factors and admm is None
    ):  # after the identity, which must not depend on the rounding of a decomposition
        network = rebalance(network)
    with contextlib.ExitStack() as stack:
        if output is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tuckertree-")))
        else:
            folder = Path(output)
        state = _resumed(folder, wanted, resume=resume)
        tick = stack.enter_context(progress_bar(progress))
        source: BatchSource | StreamedImages
        if isinstance(train_images, ImageStream):
            source = StreamedImages(train_images, settings.augment, settings.seed, classes)
        else:
            source = make_source(train_images, settings.augment, settings.seed, tick)
        if len(source) < settings.devices:
            raise UsageError(f"{len(source)} training images are too few for {settings.devices} devices")
        held_source = None if validation is None else make_source(validation, "none", settings.seed, tick)

        from tuckertree.tools.training.module import TrainingModule
        from tuckertree.tools.training.trainer import fit

        module = TrainingModule(
            network,
            settings,
            source,
            held_source,
            teacher,
            folder,
            wanted,
            checkpoint_steps,
            tick if settings.devices == 1 else None,  # a bar cannot be sent to other processes
            admm,
        )
        if state is not None:
            module.restore(state)
        diverged = fit(module, device, log=output is not None)
        final = read_checkpoint(folder / EPOCH)
        if diverged and not final["history"] and settings.strategy not in STARTED_APART:
            # There is nothing to go on from, and nothing may stand in the way of another try.
            for name in (EPOCH, STEP):
                (folder / name).unlink(missing_ok=True)
    return _outcome(network, final, settings, described, teacher is not None, diverged)


def _resumed(folder: Path, wanted: dict[str, object], *, resume: bool) -> dict[str, object] | None:
    from tuckertree.tools.training.module import ENDED

    (folder / ENDED).unlink(missing_ok=True)
    if not resume:
        if any((folder / name).exists() for name in (EPOCH, STEP)):
            raise TuckertreeError(
                f"{folder} holds an unfinished run; pass {argument('resume')} to go on, or delete it"
            )
        return None
    state = latest(folder, wanted)
    if state is None:
        warnings.warn(f"there is no checkpoint in {folder}; starting from the beginning", stacklevel=2)
    return state


def _outcome(
    network: nn.Module,
    final: dict[str, Any],
    settings: Settings,
    data: str,
    distilled: bool,
    diverged: bool,
) -> Outcome:
    if diverged:
        where = f"the loss became infinite or NaN in epoch {final['epoch'] + 1}: lr {settings.lr:g} diverged"
        if not final["history"]:
            raise DivergedError(f"{where}; give a lower one")
        warnings.warn(f"{where}; the weights of epoch {final['epoch']} are kept", stacklevel=4)
    average = final["average"]
    network.to("cpu", memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    network.load_state_dict(average["state"] if average and average["updates"] else final["network"])
    lightning = load_lightning()
    return Outcome(
        model=network.eval(),
        history=final["history"],
        settings=settings,
        seconds=round(final["seconds"], 3),
        data=data,
        distilled=distilled,
        diverged=diverged,
        versions={**environment(), "lightning": lightning.__version__},
    )
