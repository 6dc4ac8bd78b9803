"""The weight of a chain as other people's tools see it: read, scaled, replaced, written into.

A chain has no weight of its own; what it answers with is the product of its stages. Tools that fold a BatchNorm,
initialise or prune write into what they read. A write is carried out by the chain, as exactly as its type rounds,
or refused; none is lost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from tuckertree._base.errors import TuckertreeError
from tuckertree.core.layers.spec import LayerSpec, weight_of

if TYPE_CHECKING:
    from tuckertree.core.layers.chain import Chain

_ROUNDINGS = 4
"""How many roundings of its type two filters may be apart and still be the same."""
_SET_DATA, _SET_GRAD, _SET_REQUIRES_GRAD = (
    getattr(Tensor, name).__set__ for name in ("data", "grad", "requires_grad")
)


def product(chain: Chain) -> Tensor:
    """Multiply a chain's stages out: the dense weight, with its graph, in the chain's own type."""
    return chain.dense.weight(chain.factors().kernel())


@torch.no_grad()
def hold(chain: Chain, weight: Tensor) -> None:
    """Change a chain so that its stages multiply out to another dense weight.

    Filters scaled by numbers, as in folding a BatchNorm, scale the last stage and leave the others; any other weight
    is decomposed anew at the chain's ranks.

    Raises
    ------
    TuckertreeError
        If the weight is of another shape, type or device, is not finite, or has no such factors; the chain is then
        as it was.
    """
    layers, dense = list(chain), chain.dense
    present = product(chain)
    for what in ("shape", "dtype", "device"):
        if (own := getattr(present, what)) != (other := getattr(weight, what)):
            own, other = (list(x) if isinstance(x, torch.Size) else x for x in (own, other))
            raise TuckertreeError(
                f"the weight of this chain has the {what} {own}, it cannot be set to {other}"
            )
    weight = _plain(weight).detach()
    old, new = _filters(dense, present), _filters(dense, weight)
    last, spec = weight_of(layers[-1]), LayerSpec.of(layers[-1])
    scale = (new * old).sum(1) / (old * old).sum(1).clamp_min(torch.finfo(torch.float64).tiny)
    kernel = spec.kernel(last.double())
    scaled = spec.weight(kernel * scale.view(*kernel.shape[:2], *(1 for _ in kernel.shape[2:])))
    rounded = scaled.to(last)
    if _are_same(scale.unsqueeze(1) * old, new, weight.dtype) and _are_same(
        _filters(spec, rounded), _filters(spec, scaled), weight.dtype
    ):
        last.copy_(rounded)
        return
    before = [weight_of(layer).clone() for layer in layers]
    chain.set_factors(chain.decompose(dense.kernel(weight)))
    if not _are_same(
        _filters(dense, dense.weight(chain.factors().to(torch.float64).kernel())), new, weight.dtype
    ):
        for layer, own in zip(layers, before, strict=True):
            weight_of(layer).copy_(own)
        raise TuckertreeError(
            f"this chain of ranks {list(chain.ranks)} cannot have that weight, only one that its stages multiply out to, "
            "such as its own with scaled outputs; use the dense layer (tuckertree.to_dense)"
        )


def _plain(weight: Tensor) -> Tensor:
    with torch._C.DisableTorchFunctionSubclass():
        return weight.as_subclass(Tensor)


def _filters(spec: LayerSpec, weight: Tensor) -> Tensor:
    """A layer's weight in float64 with one row for each of its outputs."""
    return spec.kernel(weight.double()).flatten(0, 1).flatten(1)


def _are_same(a: Tensor, b: Tensor, dtype: torch.dtype) -> bool:
    allowed = _ROUNDINGS * torch.finfo(dtype).eps
    return bool(((a - b).norm(dim=1) <= allowed * b.norm(dim=1)).all())


def is_transformed() -> bool:
    """Whether torch compiles, exports or traces, or a transformation of ``torch.func`` is at work."""
    is_traced = torch.compiler.is_compiling() or torch._C._get_tracing_state() is not None
    return is_traced or torch._C._functorch.peek_interpreter_stack() is not None


@dataclass
class _Source:
    """Where a product comes from: the chain, the memory it was multiplied out to, the versions of the stages."""

    chain: Chain
    whole: Tensor
    versions: tuple[int, ...]

    @classmethod
    def of(cls, chain: Chain, whole: Tensor) -> _Source:
        return cls(chain, whole.detach(), _versions(chain))

    @torch.no_grad()
    def written(self) -> None:
        """Let the chain follow what was written into the memory, or take it back."""
        if self.versions != _versions(self.chain):
            raise TuckertreeError("the chain has changed since this weight of it was read; read it anew")
        try:
            hold(self.chain, self.whole)
        except TuckertreeError:
            self.whole.copy_(product(self.chain))
            raise
        self.versions = _versions(self.chain)

    def shares(self, value: Tensor) -> bool:
        """Whether a result lies in this memory."""
        try:
            place = value.untyped_storage().data_ptr()
        except (RuntimeError, NotImplementedError):  # tensors of torch's transformations have none
            return False
        return place != 0 and place == self.whole.untyped_storage().data_ptr()


def _versions(chain: Chain) -> tuple[int, ...]:
    weights = [weight_of(layer) for layer in chain]
    return tuple(0 if weight.is_inference() else weight._version for weight in weights)


class ProductWeight(Tensor):
    """The product of a chain's stages, or a view of it: what is written into it is written into the chain.

    Results of functions are plain tensors, and :class:`torch.nn.Parameter` of it is an ordinary one.
    """

    _source: _Source
    _is_whole = False

    @classmethod
    def of(cls, chain: Chain) -> Tensor:
        """Multiply a chain out; a plain tensor where torch transforms what is run."""
        if is_transformed():
            return product(chain)
        if torch.is_inference_mode_enabled():  # its tensors do not count what is written into them
            with torch.inference_mode(False), torch.no_grad():
                return cls.of(chain)
        whole = product(chain)
        weight = whole.as_subclass(cls)
        weight._source, weight._is_whole = _Source.of(chain, whole), True
        if weight.is_leaf and any(weight_of(layer).requires_grad for layer in chain):
            with torch._C.DisableTorchFunctionSubclass():  # made without gradients, but of what is trained
                weight.requires_grad_(True)
        return weight

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., object],
        types: Sequence[type],
        args: Sequence[object] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        if any(kind is not cls for kind in types):
            return NotImplemented
        kwargs = kwargs or {}
        products = [value for value in tree_leaves((args, kwargs)) if isinstance(value, cls)]
        with torch._C.DisableTorchFunctionSubclass():
            if args and isinstance(args[0], cls) and args[0]._sets(func, *args[1:], **kwargs):
                return args[0]
            before = [weight._version for weight in products]
            result = func(*args, **kwargs)
            for weight, version in zip(products, before, strict=True):
                if weight._version != version:
                    weight._source.written()
            return cls._result(result, products)

    def _sets(self, func: Callable[..., object], *args: Any, **kwargs: Any) -> bool:
        """Set the data, or whether it is trained, through to the chain; refuse what only a parameter has."""
        source = self._source
        if func == _SET_DATA:
            hold(source.chain, args[0])
            with torch.no_grad():
                source.whole.copy_(args[0])
            source.versions = _versions(source.chain)
            return True
        if not self._is_whole:
            return False
        if func in (Tensor.requires_grad_, _SET_REQUIRES_GRAD):
            for layer in source.chain:
                weight_of(layer).requires_grad_(*args, **kwargs)
            return True
        if func == Tensor.register_hook or (func == _SET_GRAD and args[0] is not None):
            raise TuckertreeError(
                "the weight of a chain has no gradient of its own; use those of its stages' weights"
            )
        return False

    @classmethod
    def _result(cls, value: Any, products: Sequence[ProductWeight]) -> Any:
        if type(value) in (list, tuple):
            return type(value)(cls._result(part, products) for part in value)
        if isinstance(value, np.ndarray):
            value.flags.writeable = False  # what is written there cannot be seen
        if type(value) is Tensor:
            for weight in products:
                if weight._source.shares(value):
                    view = value.as_subclass(cls)
                    view._source = weight._source
                    return view
        return value

    def __iter__(self) -> Iterator[object]:
        """Rows, which are views."""
        return iter(self.unbind(0))

    def __deepcopy__(self, memo: dict[int, object]) -> object:
        """A plain tensor, as a result would be."""
        return _plain(self).__deepcopy__(memo)

    def __reduce_ex__(self, protocol: object) -> Any:
        """As a plain tensor."""
        return _plain(self).__reduce_ex__(protocol)

    @property
    def _is_param(self) -> bool:
        """That this counts as a parameter, as it stands for one; what torch makes one of, by setting this, becomes one."""
        return True

    @_is_param.setter
    def _is_param(self, value: bool) -> None:  # noqa: ARG002
        vars(self).clear()
        self.__class__ = cast("Any", nn.Parameter)
