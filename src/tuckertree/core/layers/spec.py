"""What a convolution or a linear layer is, apart from its weights.

A :class:`LayerSpec` is plain data: it can be read off a torch module, compared, counted, and turned back
into a module with uninitialised weights. It also knows how the layer's weight is laid out as the grouped
kernel ``W[g, T, C, D1, ..., DN]`` that :mod:`tuckertree.core.decomposition` works on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor, nn
from torch.nn.utils import skip_init

from tuckertree._base.errors import TuckertreeError

DENSE_TYPES: tuple[type[nn.Module], ...] = (
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
    nn.Linear,
)
_CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
_TRANSPOSED = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}


def weight_of(layer: nn.Module) -> Tensor:
    """The weight of one of :data:`DENSE_TYPES`, of a chain or of one of its stages.

    Raises
    ------
    TuckertreeError
        If the layer has become something else, as by quantization.
    """
    weight = layer.weight
    if not isinstance(weight, Tensor):
        raise TuckertreeError(f"a {type(layer).__name__} holds no weight that is a tensor")
    return weight


def bias_of(layer: nn.Module) -> Tensor | None:
    """The bias of such a layer, or None."""
    bias = layer.bias
    assert bias is None or isinstance(bias, Tensor)
    return bias


@dataclass(frozen=True)
class LayerSpec:
    """Structure of a convolution (``N`` = 1, 2, 3 spatial modes), transposed or not, or a linear layer (0).

    Attributes
    ----------
    in_channels, out_channels
        ``g C`` and ``g T``.
    kernel_size, stride, padding, dilation, output_padding
        ``N`` numbers each; ``padding`` may also be ``"same"`` or ``"valid"``.
    groups
        ``g``.
    transposed, bias
        Whether it is a transposed convolution; whether it has a bias.
    padding_mode
        ``zeros``, ``reflect``, ``replicate`` or ``circular``.
    """

    in_channels: int
    out_channels: int
    kernel_size: tuple[int, ...] = ()
    stride: tuple[int, ...] = ()
    padding: tuple[int, ...] | str = ()
    dilation: tuple[int, ...] = ()
    output_padding: tuple[int, ...] = ()
    groups: int = 1
    transposed: bool = False
    bias: bool = True
    padding_mode: str = "zeros"

    @classmethod
    def of(cls, module: nn.Module) -> LayerSpec:
        """Read the structure of one of :data:`DENSE_TYPES`."""
        if isinstance(module, nn.Linear):
            return cls(module.in_features, module.out_features, bias=module.bias is not None)
        assert isinstance(module, nn.modules.conv._ConvNd)
        return cls(
            in_channels=module.in_channels,
            out_channels=module.out_channels,
            kernel_size=tuple(module.kernel_size),
            stride=tuple(module.stride),
            padding=module.padding if isinstance(module.padding, str) else tuple(module.padding),
            dilation=tuple(module.dilation),
            output_padding=tuple(module.output_padding),
            groups=module.groups,
            transposed=module.transposed,
            bias=module.bias is not None,
            padding_mode=module.padding_mode,
        )

    @classmethod
    def of_kernel(cls, kernel: Sequence[int], groups: int = 1) -> LayerSpec:
        """A convolution or linear layer of one group's kernel ``(T, C, D1, ..., DN)``, with nothing else to it."""
        outputs, inputs, *size = kernel
        ones, zeros = (1,) * len(size), (0,) * len(size)
        return cls(groups * inputs, groups * outputs, tuple(size), ones, zeros, ones, zeros, groups)

    def build(self, device: torch.device | str = "cpu", dtype: torch.dtype | None = None) -> nn.Module:
        """Make the torch module, with uninitialised weights."""
        arguments: dict[str, object]
        if not self.order:
            arguments = {
                "in_features": self.in_channels,
                "out_features": self.out_channels,
                "bias": self.bias,
            }
            return skip_init(nn.Linear, **arguments, device=device, dtype=dtype)
        arguments = {
            "in_channels": self.in_channels,
            "out_channels": self.out_channels,
            "kernel_size": self.kernel_size,
            "stride": self.stride,
            "padding": self.padding,
            "dilation": self.dilation,
            "groups": self.groups,
            "bias": self.bias,
            "padding_mode": self.padding_mode,
        }
        if self.transposed:
            arguments["output_padding"] = self.output_padding
        module = (_TRANSPOSED if self.transposed else _CONVOLUTIONS)[self.order]
        return skip_init(module, **arguments, device=device, dtype=dtype)

    @property
    def order(self) -> int:
        """Number of spatial modes, ``N``."""
        return len(self.kernel_size)

    @property
    def kind(self) -> str:
        """A short name: ``linear``, ``conv2d``, ``conv_transpose2d``, ..."""
        if not self.order:
            return "linear"
        return f"conv{'_transpose' if self.transposed else ''}{self.order}d"

    @property
    def kernel_shape(self) -> tuple[int, ...]:
        """Shape ``(T, C, D1, ..., DN)`` of one group's kernel."""
        return (self.out_channels // self.groups, self.in_channels // self.groups, *self.kernel_size)

    @property
    def nontrivial_modes(self) -> tuple[int, ...]:
        """Spatial modes with more than one tap, by number: the others need no core of their own."""
        return tuple(mode for mode, size in enumerate(self.kernel_size) if size > 1)

    @property
    def nontrivial_shape(self) -> tuple[int, ...]:
        """Kernel shape ``(T, C, ...)`` with the nontrivial modes alone."""
        return (*self.kernel_shape[:2], *(self.kernel_size[mode] for mode in self.nontrivial_modes))

    @property
    def row_shape(self) -> tuple[int, ...]:
        """Shape ``(g, C, ..., T)`` of the kernel with its nontrivial modes in a row."""
        outputs, *rest = self.nontrivial_shape
        return (self.groups, *rest, outputs)

    @property
    def weights(self) -> int:
        """Number of weights, the bias not counted."""
        return self.groups * prod(self.kernel_shape)

    def macs(self, size_in: Sequence[int], size_out: Sequence[int]) -> int:
        """Multiply-accumulates for one sample with the given spatial sizes (the bias not counted)."""
        return self.weights * prod(size_in if self.transposed else size_out)

    def kernel(self, weight: Tensor) -> Tensor:
        """View a module's weight as ``W[g, T, C, ...]`` with the nontrivial modes alone."""
        groups, (out_channels, in_channels, *taps) = self.groups, self.nontrivial_shape
        if self.transposed:
            return weight.reshape(groups, in_channels, out_channels, *taps).transpose(1, 2)
        return weight.reshape(groups, out_channels, in_channels, *taps)

    def weight(self, kernel: Tensor) -> Tensor:
        """Invert :meth:`kernel`: the weight as the module holds it, contiguous."""
        if self.transposed:
            kernel = kernel.transpose(1, 2)
        _, first, second, *_ = kernel.shape
        return kernel.reshape(self.groups * first, second, *self.kernel_size).contiguous()
