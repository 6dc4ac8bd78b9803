"""One cell: a network made by a method within a budget, and measured."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from math import isfinite
from time import perf_counter

import torch
from torch import Tensor, nn

from tuckertree._base.checkpoints import digest
from tuckertree._base.errors import TuckertreeError, UnreachableTargetError, UsageError, one_line
from tuckertree._base.version import __version__
from tuckertree.calibration import (
    Calibration,
    CalibrationData,
    CalibrationWarning,
    Length,
    output_distances,
    tune_network,
)
from tuckertree.compression import compress
from tuckertree.io.report import warnings_of
from tuckertree.measure import count_macs, count_parameters, evaluate
from tuckertree.network.surgery import is_compressed, to_dense
from tuckertree.planning import DENSE, Plan
from tuckertree.runtimes import get_runtime
from tuckertree.tools.bench import bench
from tuckertree.tools.bench.subjects import of_model
from tuckertree.tools.comparison.cells import COSTS, PRUNE, Cell, Latency, Method, Outcome, Score, budget_of
from tuckertree.tools.comparison.pruning import prune
from tuckertree.tools.data import ImageSet, batches

_BATCH = 128


@dataclass(frozen=True)
class Settings:
    """What is the same for all cells, beside network and images.

    Attributes
    ----------
    by
        What budgets are budgets of: ``macs`` or ``params``.
    tune
        How long each network that is fitted to images is tuned, ``5min`` or a number of steps; None for not at all.
    seed
        Of the order of the images in tuning.
    runtime, threads, batch
        What networks are timed on, with how many threads and samples; None for no times.

    Raises
    ------
    UsageError
        If one has a value it cannot have.
    """

    by: str = "macs"
    tune: str | None = None
    seed: int = 0
    runtime: str | None = None
    threads: int = 1
    batch: int = 1

    def __post_init__(self) -> None:
        if self.by not in COSTS:
            raise UsageError(f"budgets are of {' or '.join(COSTS)}, not of {self.by!r}")
        if self.tune is not None:
            Length.of(self.tune)
        if self.runtime is not None:
            get_runtime(self.runtime, threads=self.threads)


@dataclass(frozen=True)
class Task:
    """A network and the images that all methods are given.

    Attributes
    ----------
    name
        Of the network, as the user knows it.
    model
        In evaluation mode, on the CPU.
    example
        One input.
    images
        What networks are measured on, with labels or without.
    calibration
        Unlabelled images, none of them among the others; None where every method has the weights alone.
    settings
        More that describes how images become inputs, as JSON data.
    """

    name: str
    model: nn.Module
    example: Tensor
    images: ImageSet
    calibration: ImageSet | None = None
    settings: Mapping[str, object] = field(default_factory=dict)

    def describe(self) -> dict[str, object]:
        """What has to be the same for cells to be comparable, as JSON data."""
        fitted = self.calibration
        return {
            "model": self.name,
            "network": digest(self.model.state_dict().items()),
            "input": list(self.example.shape[1:]),
            "data": self.images.source,
            "data images": len(self.images),
            "labelled": self.images.labelled,
            "calibration": fitted.source if fitted else None,
            "calibration images": len(fitted) if fitted else 0,
            **self.settings,
        }


@dataclass(frozen=True)
class _Made:
    """A network, what it was made by where that is a plan, and reasons to doubt it."""

    model: nn.Module
    plan: Plan | None = None
    warnings: tuple[str, ...] = ()


def measure_cell(task: Task, cell: Cell, settings: Settings) -> Outcome:
    """Make the network of a cell, and measure it.

    Returns
    -------
    Outcome
        Where the network cannot be made, the reason.

    Raises
    ------
    TuckertreeError
        If the original network cannot be measured on the images.
    """
    try:
        with warnings.catch_warnings(record=True) as caught, torch.random.fork_rng(devices=()):
            warnings.simplefilter("always")
            torch.manual_seed(settings.seed)
            outcome = _measured(task, cell, settings)
    except TuckertreeError as error:
        if cell.method is None:
            raise
        return Outcome.failure(cell, one_line(error), unreachable=isinstance(error, UnreachableTargetError))
    said = (one_line(w.message) for w in caught if issubclass(w.category, CalibrationWarning))  # type: ignore[arg-type]
    return outcome.with_warnings(said)


def _measured(task: Task, cell: Cell, settings: Settings) -> Outcome:
    start = perf_counter()
    made = _Made(task.model) if cell.method is None else _made(task, cell.method, cell.budget, settings)
    seconds = perf_counter() - start if cell.method else 0.0
    score, model = _score(made.model, task), made.model
    tuned = tuning = None
    if settings.tune is not None and cell.method and cell.method.fitted:
        start = perf_counter()
        model = _tuned(made, task, settings)
        tuning = perf_counter() - start
        tuned = _score(model, task)
    return Outcome(
        method=str(cell.method or DENSE),
        budget=cell.budget,
        parameters=count_parameters(model),
        macs=count_macs(model, task.example),
        score=score,
        tuned=tuned,
        seconds=seconds,
        tuning=tuning,
        latency=_latency(model, task, settings),
        warnings=made.warnings,
    )


def _made(task: Task, method: Method, share: str, settings: Settings) -> _Made:
    """The network of a method; one that is compressed already is multiplied out first."""
    budget, model = budget_of(share, settings.by), task.model
    images: CalibrationData | None = task.calibration if method.fitted else None
    if method.name == PRUNE:
        return _Made(prune(_dense(model), task.example, budget, images))
    result = compress(model, task.example, budget, methods=method.among, calibration=images, progress=False)
    # That the weights alone do not suffice is what such a method is there to show.
    doubts = (*result.warnings, *warnings_of(result)) if method.fitted else ()
    return _Made(result.model, result.plan, doubts)


def _dense(model: nn.Module) -> nn.Module:
    return to_dense(model) if is_compressed(model) else model


def _tuned(made: _Made, task: Task, settings: Settings) -> nn.Module:
    assert task.calibration is not None
    assert settings.tune is not None
    images = Calibration(task.calibration, example=task.example)
    length = Length.of(settings.tune)
    model, tuning = tune_network(
        made.model, _dense(task.model), images, length, plan=made.plan, seed=settings.seed
    )
    if tuning.interrupted:
        raise KeyboardInterrupt
    return model


def _score(model: nn.Module, task: Task) -> Score:
    images, device = task.images, task.example.device
    if not images.labelled:
        own = Calibration(images, _BATCH, task.example)
        (distance,) = output_distances(task.model, [model], own)
        if not isfinite(distance):
            raise TuckertreeError("the outputs are not finite")
        return Score(len(images), distance=distance)
    found = evaluate(model, batches(images, _BATCH), device=device)
    low, high = found.top1_interval
    return Score(found.images, found.top1, low, high)


def _latency(model: nn.Module, task: Task, settings: Settings) -> Latency | None:
    """Of a network in turns with the original."""
    if settings.runtime is None:
        return None
    shape = (settings.batch, *task.example.shape[1:])
    inputs = torch.randn(shape, generator=torch.Generator().manual_seed(settings.seed))
    subjects = [of_model(DENSE, task.model, inputs), of_model("compressed", model, inputs)]
    runtime = get_runtime(settings.runtime, threads=settings.threads)
    found = bench(subjects, [runtime], memory=False)[1]
    ratio = found.time_ratio
    return Latency(found.seconds.median, ratio.median, ratio.low, ratio.high)


def described(task: Task, settings: Settings) -> dict[str, object]:
    """All that has to be the same for cells to be comparable, as JSON data."""
    versions = {"tuckertree": __version__, "torch": torch.__version__}
    return {**task.describe(), **asdict(settings), **versions}
