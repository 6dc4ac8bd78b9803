"""``report.json`` of a saved folder, of which any part may be missing and none is trusted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuckertree._base.errors import TuckertreeError, UsageError
from tuckertree._base.reading import read_as, read_json
from tuckertree.compression import DistanceByLayer, Sensitivity
from tuckertree.compression.int8 import InPrecision
from tuckertree.io import read_config, read_report
from tuckertree.io.folder import REPORT
from tuckertree.io.onnx_record import read_record
from tuckertree.latency import is_int8
from tuckertree.planning import Plan, SurveyRecord

if TYPE_CHECKING:
    from onnx import ModelProto

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Share:
    """A top-1 in percent with its interval."""

    top1: float
    top1_interval: tuple[float, float]


@dataclass(frozen=True)
class Lost:
    """:class:`tuckertree.compression.accuracy.loss.Loss` as it is saved."""

    kind: str
    lost: float | None
    low: float | None
    high: float | None
    images: int
    top1: tuple[Share, Share] | None = None

    def __post_init__(self) -> None:
        if (self.low is None) != (self.high is None):
            raise UsageError("an interval has both a low and a high end")


@dataclass(frozen=True)
class Step:
    """A network that was tried."""

    share: float
    parameters: tuple[int, int] | None = None
    macs: tuple[int, int] | None = None
    loss: Lost | None = None
    held: bool = False
    latency: float | None = None


@dataclass(frozen=True)
class Search:
    """How an accuracy was kept."""

    limit: float
    cheapest: str
    held: bool
    loss: Lost
    steps: tuple[Step, ...]
    proofs: tuple[Step, ...]


@dataclass(frozen=True)
class Tuned:
    """What tuning did."""

    steps: int
    best: int
    seconds: float
    before: float | None
    after: float | None
    images: int
    held_out: int
    batch: int
    seed: int
    way: Row | None = None
    note: str = ""
    interrupted: bool = False
    course: tuple[tuple[int, float | None], ...] = ()


@dataclass(frozen=True)
class Trained:
    """How a network was fine-tuned."""

    settings: Row
    data: str
    distilled: bool
    diverged: bool
    seconds: float
    history: tuple[Mapping[str, float | None], ...]
    versions: Row


@dataclass(frozen=True)
class Measured:
    """A network of a recipe, measured."""

    parameters: int
    macs: int
    top1: float | None = None
    top5: float | None = None


@dataclass(frozen=True)
class QuantizedLayers:
    """:class:`tuckertree.io.export.mixed.Int8Layers` as it is saved."""

    layers: int
    fp32: tuple[str, ...] = ()
    distance: float | None = None
    whole: float | None = None
    losses: Mapping[str, float | None] = field(default_factory=dict)


@dataclass(frozen=True)
class Quantized:
    """The network in 8 bits."""

    bytes: int
    images: int
    difference: float | None = None
    distance: float | None = None
    held_out: bool = True
    layers: QuantizedLayers = field(default_factory=lambda: QuantizedLayers(0))


@dataclass(frozen=True)
class Known:
    """What ``report.json`` may hold, beside what is not shown."""

    relative_error: float = 0.0
    errors: Mapping[str, float] = field(default_factory=dict)
    fitted: bool = False
    seconds: Mapping[str, float] = field(default_factory=dict)
    distances: Mapping[str, float] = field(default_factory=dict)
    tuning: Tuned | None = None
    accuracy: Search | None = None
    training: Trained | None = None
    survey: SurveyRecord | None = None
    by_layer: DistanceByLayer | None = None
    int8: Quantized | None = None
    precisions: tuple[InPrecision, ...] = ()
    sensitivity: Sensitivity | None = None
    original: Measured | None = None
    compressed: Measured | None = None
    environment: Mapping[str, str | int] = field(default_factory=dict)
    commands: tuple[str, ...] = ()
    images: str = ""


@dataclass(frozen=True)
class Saved:
    """What is kept of a compressed network; a :class:`tuckertree.io.report.verdict.Compressed`, too.

    Attributes
    ----------
    path
        The folder or file.
    name
        Of what was compressed.
    tuckertree
        Version that wrote it.
    plan
        What was done to each layer.
    known
        What was measured.
    int8
        Whether the network in 8 bits is there.
    """

    path: Path
    name: str
    tuckertree: str
    plan: Plan
    known: Known
    int8: bool = False

    def __post_init__(self) -> None:
        if not self.int8:  # figures of a file that is not there, such as one before tuning
            object.__setattr__(self, "known", replace(self.known, int8=None))

    @property
    def errors(self) -> Mapping[str, float]:
        """True relative error of each compressed layer's weight."""
        return self.known.errors

    @property
    def relative_error(self) -> float:
        """The same over all layers together."""
        return self.known.relative_error

    @property
    def seconds(self) -> Mapping[str, float]:
        """Time of each phase."""
        return self.known.seconds

    @property
    def fitted(self) -> bool:
        """Whether factors were fitted to images; reports of before say it by what came of that, or by its seconds."""
        known = self.known
        said = known.fitted or known.distances or known.tuning
        return bool(said or {"calibration", "tuning"} & {*known.seconds})


def open_folder(path: Path) -> Saved:
    """Read what a saved folder says; a folder without a report is one of which nothing was measured.

    Raises
    ------
    TuckertreeError
        If it is none, or something in it is of another type.
    """
    config = read_config(path)
    name, known = str(config.architecture or path.name), Known()
    if (path / REPORT).exists():
        known = read_known(read_report(path), path / REPORT)
    return Saved(path, name, config.tuckertree, config.plan, known, config.int8 is not None)


def read_known(said: Mapping[str, object], where: Path) -> Known:
    """Read a report, of which other parts are passed over; TuckertreeError if one of these is of another type."""
    wanted = {name: said[name] for name in (f.name for f in fields(Known)) if name in said}
    try:
        return read_as(Known, wanted)
    except UsageError as error:  # nobody typed it
        raise TuckertreeError(f"{where}: {error}") from error


def open_record(path: Path, proto: ModelProto) -> Saved | None:
    """Read what an ONNX file says of how it was made; None if it says nothing.

    Raises
    ------
    TuckertreeError
        If something in it is of another type.
    """
    record = read_record(proto)
    if record is None:
        return None
    known = read_known(record.report, path)
    return Saved(path, record.name, record.tuckertree, record.plan, known, is_int8(record.plan))


def with_sensitivity(saved: Saved, path: Path) -> Saved:
    """The same with what `inspect --sensitivity --json` printed.

    Raises
    ------
    TuckertreeError
        If the file is something else.
    """
    try:
        found = read_as(Sensitivity, read_json(path))
    except UsageError as error:
        raise TuckertreeError(f"{path} is not what `inspect --sensitivity --json` prints: {error}") from error
    return replace(saved, known=replace(saved.known, sensitivity=found))
