"""What a chain answers, and lets itself be told, in the place of its dense layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NoReturn, cast

from torch import Tensor, nn

from tuckertree._base.errors import TuckertreeError
from tuckertree.core.layers.product import ProductWeight, hold
from tuckertree.core.layers.spec import bias_of, weight_of

if TYPE_CHECKING:
    from tuckertree.core.layers.chain import Chain
    from tuckertree.core.layers.spec import LayerSpec
    from tuckertree.core.layers.stages import Stage

_GEOMETRY = ("kernel_size", "stride", "padding", "dilation", "output_padding")
_STRUCTURE = (*_GEOMETRY, "groups", "padding_mode")


def _of_dense(name: str) -> property:
    """An attribute that is read off the dense layer's structure, and stays what it is."""

    def set_to(chain: LayerInterface, value: object) -> None:
        own = getattr(chain._dense, name)
        if value != own and not (name in _GEOMETRY and (value,) * chain.dense.order == own):
            raise TuckertreeError(
                f"the {name} of a chain is {own} and cannot be changed to {value}; change the dense layer, before it "
                "is compressed"
            )

    return property(lambda chain: getattr(chain._dense, name), set_to)


class _NoParameters(dict[str, "nn.Parameter | None"]):
    """The parameters a chain has beside its stages': none, of which one may say where they are."""

    def __missing__(self, name: str) -> NoReturn:
        raise _no_parameter(name)

    def __delitem__(self, name: str) -> None:
        if name not in self:
            raise _no_parameter(name)
        super().__delitem__(name)


def _no_parameter(name: str) -> TuckertreeError:
    return TuckertreeError(
        f"a chain has no parameter {name!r} of its own, it is the product of its stages': parametrize, normalise or prune "
        "those, or the dense layer (tuckertree.to_dense)"
    )


def _last(chain: LayerInterface) -> Any:
    return list(chain.children())[-1]


class LayerInterface(nn.Module):
    """The attributes of a dense layer, for models and tools that use them beside calling it.

    Attributes
    ----------
    in_channels, in_features, out_channels, out_features, kernel_size, stride, padding, dilation, output_padding, \
groups, padding_mode
        Those of the dense layer; they cannot be changed.
    """

    in_channels = in_features = _of_dense("in_channels")
    out_channels = out_features = _of_dense("out_channels")
    kernel_size, stride, padding, dilation, output_padding = map(_of_dense, _GEOMETRY)
    groups, padding_mode = map(_of_dense, _STRUCTURE[len(_GEOMETRY) :])
    __jit_unused_properties__ = (
        "in_channels",
        "in_features",
        "out_channels",
        "out_features",
        *_STRUCTURE,
        "weight",
        "bias",
        "dense",
        "stages",
    )

    def stand_for(self, dense: LayerSpec, stages: Sequence[Stage]) -> None:
        """Keep what the chain stands for and is made of, and say so where tools look for a parameter of its own."""
        self._dense, self._stages = dense, tuple(stages)
        self.__dict__["_parameters"] = _NoParameters()

    @property
    def dense(self) -> LayerSpec:
        """Structure of the layer this stands for; it has a bias if the last stage has one by now."""
        return replace(self._dense, bias=self.bias is not None)

    @property
    def stages(self) -> tuple[Stage, ...]:
        """Structure of each layer of the chain."""
        *others, last = self._stages
        return (*others, replace(last, spec=replace(last.spec, bias=self.bias is not None)))

    @property
    def weight(self) -> Tensor:
        """The weight of the dense layer this stands for, multiplied out: for tools that read it or write into it.

        Setting it, or writing into it, changes the stages so that they multiply out to what was written.

        Raises
        ------
        TuckertreeError
            If they cannot: :func:`~tuckertree.core.layers.product.hold`.
        """
        return ProductWeight.of(cast("Chain", self))

    @weight.setter
    def weight(self, value: Tensor) -> None:
        if not isinstance(value, nn.Parameter):
            raise TuckertreeError(
                f"the weight of a chain is set to a torch.nn.Parameter, as a layer's is, not to a {type(value).__name__}"
            )
        hold(cast("Chain", self), value)
        if not isinstance(value, ProductWeight):
            for layer in self.children():
                weight_of(layer).requires_grad_(value.requires_grad)

    @weight.deleter
    def weight(self) -> None:
        raise _no_parameter("weight")

    @property
    def bias(self) -> Tensor | None:
        """The bias, which is the last stage's; it may be set, or set to None."""
        return bias_of(_last(self))

    @bias.setter
    def bias(self, value: nn.Parameter | None) -> None:
        if value is not None and value.shape != (self.dense.out_channels,):
            raise TuckertreeError(
                f"the bias of this chain has {self.dense.out_channels} values, it cannot have the shape {list(value.shape)}"
            )
        _last(self).bias = value

    @bias.deleter
    def bias(self) -> None:
        raise TuckertreeError("the bias of a chain cannot be deleted; set it to None")

    def register_parameter(self, name: str, param: nn.Parameter | None) -> None:
        """Set the weight or bias; see there. Others that stand for one of them are refused."""
        if name in ("weight", "bias"):
            object.__setattr__(self, name, param)
        elif name.startswith(("weight_", "bias_")):
            raise _no_parameter(name.partition("_")[0])
        else:
            super().register_parameter(name, param)
