"""One cell: a network made by a method within a budget, and measured."""

from __future__ import annotations

import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

import torch
from torch import nn

from tuckertree._base.errors import TuckertreeError, UnreachableTargetError, UsageError, one_line
from tuckertree._base.version import __version__
from tuckertree.calibration import CalibrationWarning, Length, tune_network
from tuckertree.compression import compress
from tuckertree.compression.network import Network
from tuckertree.compression.networks import OnnxNetwork
from tuckertree.io.report import warnings_of
from tuckertree.measure import count_macs, count_parameters
from tuckertree.planning import DENSE, Budget, Plan
from tuckertree.runtimes import get_runtime
from tuckertree.tools.bench import Subject, bench, of_model, open_subject
from tuckertree.tools.comparison.cells import COSTS, PRUNE, Cell, Latency, Method, Outcome, budget_of
from tuckertree.tools.comparison.pruning import prune
from tuckertree.tools.comparison.task import Images, Task, network_of


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
class _Made:
    """A network that a method gave.

    Attributes
    ----------
    network
        What it was made of.
    model
        In torch.
    used
        What is scored and timed: the model, or the ONNX file that is written of it.
    plan
        What it was made by, where that is a plan.
    warnings
        Reasons to doubt it.
    """

    network: Network
    model: nn.Module
    used: nn.Module | Path
    plan: Plan | None = None
    warnings: tuple[str, ...] = ()


def measure_cell(task: Task, cell: Cell, settings: Settings) -> Outcome:
    """Make the network of a cell, in each fold, and measure it.

    Returns
    -------
    Outcome
        Where the network cannot be made or scored, the reason. Sizes and times are those of the first fold's network.

    Raises
    ------
    TuckertreeError
        If the original network cannot be measured on the images.
    """
    try:
        with (
            warnings.catch_warnings(record=True) as caught,
            torch.random.fork_rng(devices=()),
            TemporaryDirectory(prefix="tuckertree-") as folder,
        ):
            warnings.simplefilter("always")
            torch.manual_seed(settings.seed)
            outcome = _measured(task, cell, settings, Path(folder))
    except TuckertreeError as error:
        if cell.method is None:
            raise
        return Outcome.failure(cell, one_line(error), unreachable=isinstance(error, UnreachableTargetError))
    said = (one_line(w.message) for w in caught if issubclass(w.category, CalibrationWarning))  # type: ignore[arg-type]
    return outcome.with_warnings(said)


def _measured(task: Task, cell: Cell, settings: Settings, folder: Path) -> Outcome:
    method, folds = cell.method, task.folds
    made: list[_Made] = []
    used: list[nn.Module | Path] = [task.model] * len(folds)
    seconds = 0.0
    if method is not None:
        start, budget = perf_counter(), budget_of(cell.budget, settings.by)
        fitted_to: list[Images | None] = [fold.calibration for fold in folds] if method.fitted else [None]
        made = [_made(task, method, budget, images, folder) for images in fitted_to]
        seconds = (perf_counter() - start) / len(made)
        used = [each.used for each in made] * (len(folds) // len(made))
    score = task.score(used)
    tuned = tuning = None
    if settings.tune is not None and method is not None and method.fitted:
        start = perf_counter()
        pairs = zip(made, folds, strict=True)
        used = [_tuned(each, fold.calibration, settings, folder) for each, fold in pairs]
        tuning = (perf_counter() - start) / len(made)
        tuned = task.score(used)
    parameters, macs = _sizes(used[0], task)
    return Outcome(
        method=str(method or DENSE),
        budget=cell.budget,
        parameters=parameters,
        macs=macs,
        score=score,
        tuned=tuned,
        seconds=seconds,
        tuning=tuning,
        latency=_latency(used[0], task, settings),
        warnings=tuple(dict.fromkeys(line for each in made for line in each.warnings)),
    )


def _made(task: Task, method: Method, budget: Budget, images: Images | None, folder: Path) -> _Made:
    """The network of a method; one that is compressed already is multiplied out first."""
    network = task.network
    if method.name == PRUNE:
        fitted = None if images is None else network.images(images)
        model = prune(network.module, network.example, budget, fitted)
        return _Made(network, model, _as_used(network, model, folder))
    result = compress(network, None, budget, methods=method.among, calibration=images, progress=False)
    # That the weights alone do not suffice is what such a method is there to show.
    doubts = (*result.warnings, *warnings_of(result)) if method.fitted else ()
    return _Made(network, result.model, _as_used(network, result.model, folder), result.plan, doubts)


def _tuned(made: _Made, images: Images | None, settings: Settings, folder: Path) -> nn.Module | Path:
    assert images is not None
    assert settings.tune is not None
    given, length = made.network.images(images), Length.of(settings.tune)
    model, tuning = tune_network(
        made.model, made.network.module, given, length, plan=made.plan, seed=settings.seed
    )
    if tuning.interrupted:
        raise KeyboardInterrupt
    return _as_used(made.network, model, folder)


def _as_used(network: Network, model: nn.Module, folder: Path) -> nn.Module | Path:
    if isinstance(network, OnnxNetwork):
        return network.write(model, folder / f"{len(list(folder.iterdir()))}.onnx")
    return model


def _sizes(used: nn.Module | Path, task: Task) -> tuple[int, int]:
    """Parameters and MACs."""
    if isinstance(used, Path):
        found = network_of(used, task.example).inventory()
        return found.parameters, found.macs
    return count_parameters(used), count_macs(used, task.example)


def _latency(used: nn.Module | Path, task: Task, settings: Settings) -> Latency | None:
    """Of a network in turns with the original."""
    if settings.runtime is None:
        return None
    subjects = [_subject(DENSE, task.model, task, settings), _subject("compressed", used, task, settings)]
    runtime = get_runtime(settings.runtime, threads=settings.threads)
    found = bench(subjects, [runtime], memory=False)[1]
    ratio = found.time_ratio
    return Latency(found.seconds.median, ratio.median, ratio.low, ratio.high)


def _subject(name: str, used: nn.Module | Path, task: Task, settings: Settings) -> Subject:
    size = tuple(task.example.shape[1:])
    if isinstance(used, Path):
        return open_subject(used, batch=settings.batch, input_size=size)
    generator = torch.Generator().manual_seed(settings.seed)
    return of_model(name, used, torch.randn((settings.batch, *size), generator=generator))


def described(task: Task, settings: Settings) -> dict[str, object]:
    """All that has to be the same for cells to be comparable, as JSON data."""
    versions = {"tuckertree": __version__, "torch": torch.__version__}
    return {**task.describe(), **asdict(settings), **versions}
