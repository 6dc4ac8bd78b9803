"""What a method is: which layers it factors, at which ranks and errors, and the plain layers that they become."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from itertools import pairwise

import torch
from torch import Tensor

from tuckertree._base.errors import TuckertreeError, UsageError
from tuckertree.core.decomposition import Factors, Spectra, Truncations
from tuckertree.core.layers.spec import LayerSpec
from tuckertree.core.layers.stages import Scaling, Stage, chain_parameters, chain_stages, merged_stages

_RESERVED = "dense"


@dataclass(frozen=True)
class Choices:
    """Ranks that a method offers for one kernel ``[n, k]``, int64, and the squared error of each ``[n]``, float64.

    The error, or a bound of it, is that of the kernel given: ``||W - W^||_F^2``, not relative.
    """

    ranks: Tensor
    squared: Tensor


class Method(ABC):
    """One way to factor a kernel ``W[g, T, C, D1, ..., DN]``, its nontrivial modes alone.

    A subclass says what its stages are and computes their factors; costs, errors, saving, export, fusion and
    calibration follow from these. The stages act one after the other, each on axes of its own, and what each
    costs is a monomial of the ranks. Registered (:func:`register`), it can be asked for by its name.
    :class:`tuckertree.testing.MethodContract` tests all that is required.

    Attributes
    ----------
    name
        By which plans, folders and options know it.
    """

    name: str

    def applies(self, spec: LayerSpec) -> bool:  # noqa: ARG002
        """Whether a layer can be factored so."""
        return True

    def is_usual(self, spec: LayerSpec) -> bool:  # noqa: ARG002
        """Whether a layer's chain goes by this name: of methods with the same stages, the usual one is chosen."""
        return True

    def rank_count(self, spec: LayerSpec) -> int:  # noqa: ARG002
        """How many ranks the method has for a layer."""
        return 1

    @abstractmethod
    def stages(self, spec: LayerSpec, ranks: Sequence[int]) -> tuple[Stage, ...]:
        """The plain layers that a layer becomes, for any positive ranks; the last has the bias."""

    @abstractmethod
    def choices(self, spec: LayerSpec, kernel: Truncations, round_to: int) -> Choices:
        """Feasible ranks on offer, multiples of ``round_to`` where there is room, and their errors."""

    @abstractmethod
    def decompose(self, kernel: Tensor, ranks: Sequence[int], spectra: Spectra | None = None) -> Factors:
        """Factor a kernel, in float64: a core for each stage, the same ones every time.

        ``spectra`` are those of :class:`~tuckertree.core.decomposition.Truncations`, where they are at hand.
        """

    def feasible(self, shape: Sequence[int], ranks: Sequence[int]) -> tuple[int, ...]:  # noqa: ARG002
        """Ranks lowered to what a kernel of shape ``(T, C, D1, ..., DN)`` can have; nothing is lost by it."""
        return tuple(ranks)

    def cuts(self, spec: LayerSpec) -> tuple[int, ...]:
        """Numbers of the places between the stages, by which a plan names those that stay when it is run."""
        return tuple(range(len(self.stages(spec, (1,) * self.rank_count(spec))) - 1))

    def refine(
        self,
        start: Callable[[], Factors],
        kernel: Tensor,  # noqa: ARG002
        sigma: Tensor,  # noqa: ARG002
        *,
        ranks: Sequence[int],  # noqa: ARG002
        sweeps: int,  # noqa: ARG002
        tolerance: float,  # noqa: ARG002
    ) -> Factors:
        """Factors that make ``tr((W - W^) Sigma (W - W^)^T)`` small; by default those of the start.

        Parameters
        ----------
        start
            Gives what :meth:`decompose` makes of the kernel in the metric of its input channels.
        kernel, sigma
            ``W[g, T, C, D1, ..., DN]``; second moment of the patches ``[g, K, K]``, ``K = C D1 ... DN``.
        ranks
            Feasible.
        sweeps, tolerance
            At most so many; fewer where one lowers the error by less than this share.
        """
        return start()

    def balance(self, factors: Factors) -> Factors:
        """The same kernel from factors that are better to train; by default as they are."""
        return factors

    def scaling(self, spec: LayerSpec, kept: Sequence[int] | None = None) -> Scaling:
        """The stages as functions of the ranks, merged where a cut is not kept."""
        return Scaling.of(lambda ranks: self.run_as(spec, ranks, kept), self.rank_count(spec))

    def run_as(
        self, spec: LayerSpec, ranks: Sequence[int], kept: Sequence[int] | None = None
    ) -> tuple[Stage, ...]:
        """The stages, merged where a cut is not kept."""
        stages = self.checked_stages(spec, ranks)
        return stages if kept is None else merged_stages(stages, self.cuts(spec), kept)

    def checked_ranks(self, spec: LayerSpec, ranks: Sequence[int]) -> tuple[int, ...]:
        """Feasible ranks for a layer.

        Raises
        ------
        UsageError
            If the method has none for the layer, or there are not as many positive ranks as it needs.
        """
        if not self.applies(spec):
            raise UsageError(
                f"method {self.name!r} does not exist for a {spec.kind} {list(spec.kernel_shape)}"
            )
        count = self.rank_count(spec)
        if len(ranks) != count or any(rank < 1 for rank in ranks):
            raise UsageError(f"{count} positive ranks are needed here, got {tuple(ranks)}")
        return self.feasible(spec.nontrivial_shape, ranks)

    def checked_choices(self, spec: LayerSpec, kernel: Truncations, round_to: int) -> Choices:
        """:meth:`choices`, or the clause of the contract that they break."""
        found = self.choices(spec, kernel, round_to)
        if not isinstance(found, Choices):
            raise self.breach(f"choices() gives {type(found).__name__}, no Choices")
        n, k = len(found.squared), self.rank_count(spec)
        if found.ranks.shape != (n, k) or found.ranks.dtype != torch.int64 or (found.ranks < 1).any():
            raise self.breach(f"choices() must offer positive int64 ranks [{n}, {k}]")
        if found.squared.ndim != 1 or not (found.squared.isfinite() & (found.squared >= 0)).all():
            raise self.breach("the squared errors of choices() must be finite and not negative, [n]")
        return found

    def checked_stages(self, spec: LayerSpec, ranks: Sequence[int]) -> tuple[Stage, ...]:
        """:meth:`stages`, or the clause of the contract that they break: they do what the layer does."""
        stages = self.stages(spec, ranks)
        axes = [axis for stage in stages for axis in stage.axes]
        orders = {stage.spec.order for stage in stages}
        if orders != {spec.order} or sorted(axes) != list(range(spec.order)):
            raise self.breach("each axis of the layer must be in one of the stages")
        if len({stage.name for stage in stages}) < len(stages):
            raise self.breach("the stages must have names of their own")
        (dense,), (whole,) = chain_stages(spec, (), ()), merged_stages(stages, range(len(stages) - 1), ())
        wrong = [f.name for f in fields(spec) if getattr(whole.spec, f.name) != getattr(dense.spec, f.name)]
        if any(stage.spec.out_channels != after.spec.in_channels for stage, after in pairwise(stages)):
            wrong.append("channels between them")
        for stage in stages:
            for name, value in (("kernel_size", 1), ("stride", 1), ("padding", 0), ("output_padding", 0)):
                along = getattr(stage.spec, name)
                still = [axis for axis in range(spec.order) if axis not in stage.axes]
                if along != "same" and any(along[axis] != value for axis in still):
                    wrong.append(name)
        if wrong:
            raise self.breach(
                f"the stages together do not have the layer's {', '.join(dict.fromkeys(wrong))}"
            )
        return stages

    def checked_costs(self, spec: LayerSpec, ranks: Sequence[int], parameters: int) -> None:
        """Raise the clause of the contract that the costs of the stages break, if they do."""
        if (found := chain_parameters(self.stages(spec, ranks))) != parameters:
            raise self.breach(
                f"the cost of each stage must be a monomial of the ranks; at {tuple(ranks)} there are {found} "
                f"weights, not {parameters}"
            )

    def factors(self, kernel: Tensor, ranks: Sequence[int], spectra: Spectra | None = None) -> Factors:
        """:meth:`decompose`, or the clause of the contract that the factors break."""
        return self.checked_factors(kernel, self.decompose(kernel, ranks, spectra))

    def merged_factors(
        self, kernel: Tensor, ranks: Sequence[int], cuts: Sequence[int], kept: Sequence[int]
    ) -> Factors:
        """Factors for the stages merged where a cut is not kept."""
        return self.factors(kernel, ranks).merged(cuts, kept)

    def checked_factors(self, kernel: Tensor, factors: Factors) -> Factors:
        """Factors of a kernel ``W[g, T, C, D1, ..., DN]``, or the clause of the contract that they break."""
        if not isinstance(factors, Factors):
            raise self.breach(f"the factors are no Factors, but {type(factors).__name__}")
        rows, groups = factors.rows(), factors.groups
        ends = (len(row) * row.shape[place] // groups for row, place in ((rows[-1], -1), (rows[0], 1)))
        found = [groups, *ends, *(size for row in rows for size in row.shape[2:-1])]
        if found != list(kernel.shape):
            raise self.breach(f"the factors multiply to a kernel {found}, not {list(kernel.shape)}")
        if not all(bool(row.isfinite().all()) for row in rows):
            raise self.breach("the factors are NaN or infinite")
        return factors

    def breach(self, clause: str) -> TuckertreeError:
        """The error that says which clause of its contract the method breaks."""
        return TuckertreeError(f"the method {self.name!r} breaks its contract: {clause}")


_METHODS: dict[str, Method] = {}


def register(method: Method) -> Method:
    """Make a method known by its name, to be asked for with ``methods=`` and read in plans and folders.

    A class that is defined anew, as in a notebook, takes the place of its former self.

    Raises
    ------
    UsageError
        If it has no name, or one that another method has.
    """
    name = getattr(method, "name", None)
    if not isinstance(method, Method) or not isinstance(name, str) or not name.isidentifier():
        raise UsageError(f"a method is an instance of Method with a name of letters, not {method!r}")
    former = type(_METHODS.get(name, method))
    is_same = (former.__module__, former.__qualname__) == (type(method).__module__, type(method).__qualname__)
    is_ours = name in _METHODS and former.__module__.startswith(__name__.partition(".")[0])
    if name == _RESERVED or is_ours or not is_same:
        raise UsageError(f"the name {name!r} of a method is taken")
    _METHODS[name] = method
    return method


def known_methods() -> tuple[str, ...]:
    """Names of all methods."""
    return tuple(_METHODS)


def get_method(name: str) -> Method:
    """The method of a name.

    Raises
    ------
    UsageError
        If there is none, with the names that there are.
    """
    if name not in _METHODS:
        raise UsageError(f"unknown method {name!r}; known: {', '.join(_METHODS)}")
    return _METHODS[name]
