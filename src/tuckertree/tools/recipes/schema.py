"""What a recipe says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal

from tuckertree._base.errors import UsageError
from tuckertree.compression.objectives import AnyRule, find_objective
from tuckertree.planning import Budget, Energy, ErrorBound, Options, Ranks
from tuckertree.tools.data import Preprocessing
from tuckertree.tools.training import Settings


@dataclass(frozen=True)
class Publication:
    """Where the experiment was published.

    Attributes
    ----------
    work
        The publication.
    table, row
        What it is there: the network and data set, and the setting.
    """

    work: str
    table: str
    row: str


@dataclass(frozen=True)
class Data:
    """The images.

    Attributes
    ----------
    kind
        The data set, for the reader; the path is given at each run.
    train_images, test_images
        Size of the whole splits. A run on fewer images is not a run of the whole recipe.
    test_split
        The split to test on.
    preprocessing
        How images become inputs; by default as the network's name says.
    """

    kind: Literal["cifar10", "imagenet"]
    train_images: int
    test_images: int
    test_split: Literal["test", "val"] = "test"
    preprocessing: Preprocessing | None = None


@dataclass(frozen=True)
class ReductionTarget:
    """A reduction of the whole network.

    Attributes
    ----------
    params, macs
        A share in (0, 1], such as 0.4, or a factor as text, such as ``2.5x``.

    Raises
    ------
    UsageError
        If neither is given, or one is neither a share nor a factor.
    """

    params: float | str | None = None
    macs: float | str | None = None

    def __post_init__(self) -> None:
        Budget(params=self.params, macs=self.macs)


@dataclass(frozen=True)
class Compression:
    """How the network is compressed. Exactly one of the first five is given; it is the rule.

    Attributes
    ----------
    energy
        One energy for all layers.
    energy_for
        The same, but the energy is the largest at which the network is reduced so far: the paper's kind of
        ranks at a given reduction, for weights with other spectra than the paper's.
    error
        A bound on each layer's relative error.
    budget
        Shares of parameters, MACs or both, spent where they lose least.
    ranks
        Ranks by name pattern.
    include, exclude, first, round_to, objective
        As of :func:`tuckertree.compress`.
    calibration
        So many training images to fit to, unlabelled; 0 for none.
    tune
        So many steps of tuning without labels on the same images (:func:`tuckertree.tune`).

    Raises
    ------
    UsageError
        If there is no rule or more than one, or a value cannot be.
    """

    energy: float | None = None
    energy_for: ReductionTarget | None = None
    error: float | None = None
    budget: ReductionTarget | None = None
    ranks: Mapping[str, int | float | tuple[int, ...]] | None = None
    include: tuple[str, ...] = ("*",)
    exclude: tuple[str, ...] = ()
    first: str = "svd"
    round_to: int = 1
    objective: str | None = None
    calibration: int = 0
    tune: int = 0

    def __post_init__(self) -> None:
        rules = ("energy", "energy_for", "error", "budget", "ranks")
        if sum(getattr(self, name) is not None for name in rules) != 1:
            raise UsageError(f"give exactly one of {', '.join(rules)}")
        self.options()
        rule = self.rule()
        if self.calibration < 0:
            raise UsageError(f"calibration must be a number of images, 0 for none, not {self.calibration}")
        if self.tune < 0 or (self.tune and not self.calibration):
            raise UsageError(f"tune must be a number of steps, on the images of calibration, not {self.tune}")
        find_objective(self.objective, rule, calibrated=self.calibration > 0)

    def options(self) -> Options:
        """Which layers are compressed, and how."""
        return Options(self.include, self.exclude, self.first, self.round_to)

    def rule(self) -> AnyRule | None:
        """The rule for the ranks, or None where an energy has to be found first (``energy_for``)."""
        if self.energy is not None:
            return Energy(self.energy)
        if self.error is not None:
            return ErrorBound(self.error)
        if self.budget is not None:
            return Budget(params=self.budget.params, macs=self.budget.macs)
        return Ranks(self.ranks) if self.ranks is not None else None


@dataclass(frozen=True)
class RecipeStage:
    """One compression and the training after it.

    Attributes
    ----------
    compression
        In the second stage and later, of the network of the stage before, multiplied out to dense layers.
    training
        None trains nothing.
    """

    compression: Compression
    training: Settings | None = None


@dataclass(frozen=True)
class Schedule:
    """Another way to the reduction of any recipe: a budget fitted to images, and a training of its own.

    Attributes
    ----------
    name
        As ``--schedule`` takes it.
    calibration, tune
        As of :class:`Compression`.
    training
        In the place of the recipe's.
    note
        How it was chosen.
    """

    name: str
    calibration: int
    training: Settings
    tune: int = 0
    note: str = ""


@dataclass(frozen=True)
class Paper:
    """What was published for this row; what was not is None.

    Attributes
    ----------
    baseline
        Top-1 of the uncompressed network, in percent.
    top1_change, top5_change
        After fine-tuning, in points.
    params, macs
        Factor by which the parameters and the MACs (the paper's FLOPs) are fewer.
    energy
        The energy of the paper's ranks.
    epochs, schedule
        Of the paper's fine-tuning.
    """

    baseline: float | None = None
    top1_change: float | None = None
    top5_change: float | None = None
    params: float | None = None
    macs: float | None = None
    energy: float | None = None
    epochs: int | None = None
    schedule: str | None = None


@dataclass(frozen=True)
class Baseline:
    """Another method's result on the same network, at this reduction or less.

    Attributes
    ----------
    name
        The method.
    params, macs, top1_change, top5_change
        As in :class:`Paper`.
    note
        What has to be known to read the numbers.
    """

    name: str
    params: float | None = None
    macs: float | None = None
    top1_change: float | None = None
    top5_change: float | None = None
    note: str | None = None


@dataclass(frozen=True)
class Recipe:
    """One published experiment, and how it is repeated here.

    Attributes
    ----------
    name
        For people, and for tables.
    source
        Where it was published.
    network
        MODEL, a name of a known scheme.
    data
        The images.
    paper
        What was published.
    weights
        Name of the file with the trained weights, without a folder; only ``demo`` has weights of its own.
    weights_from
        Where such weights can be had.
    compression, training
        The only stage, or
    stages
        several of them, one after the other.
    rivals
        Other methods' results, to be compared at equal reduction.
    note
        What has to be known to read the result.

    Raises
    ------
    UsageError
        If both ``compression`` and ``stages`` are given, or neither; if the weights are not a file name; if a
        stage asks for no greater reduction than one before it.
    """

    name: str
    source: Publication
    network: str
    data: Data
    paper: Paper
    weights: str | None = None
    weights_from: str = ""
    compression: Compression | None = None
    training: Settings | None = None
    stages: tuple[RecipeStage, ...] = ()
    rivals: tuple[Baseline, ...] = ()
    note: str = ""
    steps: tuple[RecipeStage, ...] = field(init=False)

    def __post_init__(self) -> None:
        if (self.compression is None) == (not self.stages):
            raise UsageError("give either compression (and training), or stages")
        if self.stages and self.training is not None:
            raise UsageError("training belongs into the stages, where there are stages")
        self._check_weights()
        self._check_growth()
        steps = self.stages or (RecipeStage(self.compression, self.training),)  # type: ignore[arg-type]
        object.__setattr__(self, "steps", steps)

    def _check_growth(self) -> None:
        targets = [stage.compression.energy_for or stage.compression.budget for stage in self.stages]
        budgets = [Budget(params=target.params, macs=target.macs) for target in targets if target is not None]
        for kind in ("params", "macs"):
            shares = [share for budget in budgets if (share := getattr(budget, kind)) is not None]
            if any(later >= earlier for earlier, later in pairwise(shares)):
                raise UsageError(f"stages: each must reduce {kind} further than those before it")

    def _check_weights(self) -> None:
        name = self.weights
        if name is None and self.network != "demo":
            raise UsageError("the key 'weights' is missing; only the network demo has weights of its own")
        if name is not None and ("/" in name or "\\" in name or not name.endswith(".safetensors")):
            raise UsageError(
                f"weights: must be the name of a .safetensors file, without a folder, not {name!r}"
            )
