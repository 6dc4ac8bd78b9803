"""Chains run by few Triton kernels on a GPU, for inference: the last 1x1 is part of the kernel before it."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any, cast

import torch
from torch import Tensor, nn

from tuckertree._base.errors import TuckertreeError
from tuckertree.core.layers import Chain, contract_chain, fusion_variants, weight_of
from tuckertree.core.layers.spec import bias_of
from tuckertree.network.surgery import replace_layers

_LANES = 16
"""Channels of a tile of the tensor cores: ranks are filled up with zeros to multiples of it."""
_MOST_COLUMNS = 256
"""Ranks up to which the result of a convolution stays in registers until the 1x1 reads it."""


class FusedChain(nn.Module):
    """Convolutions one after the other as Triton kernels, for inference; shares no memory with them.

    Parameters
    ----------
    layers
        A chain, or as plain a sequence, that is not :func:`unfit`.
    relu
        Whether ReLU is applied to the result in the last kernel.

    Raises
    ------
    TuckertreeError
        If the kernels cannot run these layers; the message says why.
    """

    def __init__(self, layers: nn.Sequential, *, relu: bool = False) -> None:
        super().__init__()
        if (reason := unfit(layers)) is not None:
            raise TuckertreeError(f"the Triton kernels cannot run this chain: {reason}")
        left: list[Any] = list(layers)
        steps: list[_Step] = []
        given = left[0].in_channels
        while left:
            layer, following = left[0], left[1] if len(left) == 2 and _can_expand(*left) else None
            left = left[1 if following is None else 2 :]
            steps.append(_Step(given, layer, following, is_last=not left, relu=relu and not left))
            given = steps[-1].filters
        self.steps = nn.ModuleList(steps)

    def forward(self, input: Tensor, residual: Tensor | None = None) -> Tensor:  # noqa: A002
        """Run the kernels, the last of which adds ``residual``; the output is in ``torch.channels_last``."""
        x = input.contiguous(memory_format=torch.channels_last)
        *before, last = self.steps
        for step in before:
            x = step(x)
        return last(x, None if residual is None else residual.contiguous(memory_format=torch.channels_last))


class _Step(nn.Module):
    """One kernel: a convolution, and the 1x1 behind it if there is one."""

    weight: Tensor
    expand: Tensor | None
    bias: Tensor | None

    def __init__(self, given: int, layer: Any, following: Any | None, *, is_last: bool, relu: bool) -> None:
        super().__init__()
        self._relu = relu
        from tuckertree.runtimes.triton_kernels import Geometry, convolve  # imports triton

        self._convolve = convolve
        self._geometry = Geometry(layer.kernel_size, layer.stride, layer.padding)
        weight = weight_of(layer).detach()
        rank, channels = weight.shape[:2]
        columns = max(_LANES, 1 << (rank - 1).bit_length())
        rows = _filled(weight.permute(2, 3, 1, 0).reshape(-1, channels, rank), given, columns)
        self.register_buffer("weight", rows.reshape(-1, columns).contiguous())
        expand = None
        self.filters: int = -(-rank // _LANES) * _LANES
        if following is not None:
            matrix = weight_of(following).detach()[:, :, 0, 0].t()
            self.filters = matrix.shape[1]
            expand = _filled(matrix, columns, self.filters).contiguous()
        elif is_last:
            self.filters = rank
        self.register_buffer("expand", expand)
        bias = _bias_behind(layer, following)
        self.register_buffer("bias", None if bias is None else _filled(bias, self.filters))

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        weights = (self.weight, self.expand, self.bias)
        return self._convolve(x, *weights, self.filters, self._geometry, residual=residual, relu=self._relu)


def fused_chain(chain: Chain, cuts: Sequence[int] | None = None) -> FusedChain:
    """Make the Triton form of a chain, for inference; it shares no memory with the chain.

    Parameters
    ----------
    chain
        A factored two-dimensional convolution.
    cuts
        Those that stay, as in :func:`~tuckertree.core.layers.fusion_variants`; by default the chain's. The fewer,
        the fewer kernels; a 1x1 at the end is no kernel of its own.

    Raises
    ------
    TuckertreeError
        If triton is not installed or the kernels cannot run this chain; the message says why.

    Examples
    --------
    >>> import torch, tuckertree as tt
    >>> chain = tt.factorize(torch.nn.Conv2d(32, 64, 3, padding=1), "ht2", (8, 12, 10))
    >>> fused = fused_chain(chain.half().cuda(), (1, 2))  # doctest: +SKIP
    """
    wanted = tuple(chain.cuts if cuts is None else cuts)
    found = [form for form in fusion_variants(chain.stages, chain.cuts) if form.cuts == wanted]
    if not found or found[0].is_dense:
        raise TuckertreeError(f"a chain cut at {chain.cuts} has no factored form cut at {wanted}")
    contracted = contract_chain(chain, found[0])
    assert isinstance(contracted, Chain)
    return FusedChain(contracted)


def unfit(layers: nn.Sequential) -> str | None:
    """Why the kernels cannot run a chain, or as plain a sequence of layers; None if they can."""
    if type(layers).forward is not nn.Sequential.forward or not len(layers):
        return "it is no sequence of layers"
    for layer in layers:
        if type(layer) is not nn.Conv2d:
            return f"it has a {type(layer).__name__}, which is not Conv2d"
        if layer.groups != 1:
            return "it has groups"
        if set(layer.dilation) != {1}:
            return f"its dilation is {layer.dilation}"
        if layer.padding_mode != "zeros" or isinstance(layer.padding, str):
            return f"its padding is {layer.padding!r}, {layer.padding_mode}"
        if layer.weight.dtype not in (torch.float16, torch.bfloat16, torch.float32):
            return f"its weights are {layer.weight.dtype}"
    channels = cast("nn.Conv2d", layers[0]).in_channels
    if channels % _LANES:
        return f"it has {channels} input channels, not a multiple of {_LANES}"
    if not find_spec("triton"):
        return "the package triton is not installed"
    return None


def fuse_chains(model: nn.Module, cuts: Sequence[int] | None = None) -> nn.Module:
    """A copy of a network with every chain that the kernels can run in its Triton form.

    Parameters
    ----------
    cuts
        As in :func:`fused_chain`; a chain that has no such form keeps its own cuts.
    """
    fused = {}
    for name, module in model.named_modules():
        if isinstance(module, Chain) and unfit(module) is None:
            known = {form.cuts for form in fusion_variants(module.stages, module.cuts) if form.cuts}
            fused[name] = fused_chain(module, cuts if cuts is not None and tuple(cuts) in known else None)
    return replace_layers(model, fused)


def _can_expand(layer: Any, following: Any) -> bool:
    """Whether a kernel can run both: the second is a 1x1, and its input fits in registers."""
    is_pointwise = following.kernel_size == (1, 1) and following.stride == (1, 1)
    return is_pointwise and following.padding == (0, 0) and layer.out_channels <= _MOST_COLUMNS


def _bias_behind(layer: Any, following: Any | None) -> Tensor | None:
    """The bias of both as one behind them: the 1x1 maps that of the convolution too."""
    first = bias_of(layer)
    if following is None or first is None:
        last = first if following is None else bias_of(following)
        return None if last is None else last.detach()
    matrix, last = weight_of(following).detach()[:, :, 0, 0], bias_of(following)
    mapped = matrix.double() @ first.detach().double()
    return (mapped if last is None else mapped + last.detach()).to(matrix.dtype)


def _filled(values: Tensor, *sizes: int) -> Tensor:
    """A copy, its last axes filled up with zeros: the kernels read all of it."""
    missing = [size - length for size, length in zip(sizes, values.shape[-len(sizes) :], strict=True)]
    return nn.functional.pad(values, [side for count in reversed(missing) for side in (0, count)])
