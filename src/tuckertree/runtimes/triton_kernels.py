"""The Triton kernel of a fused convolution. Importing this imports triton: see ``triton_chain``."""

# The arguments of a kernel are typed by Triton, call by call.
# ruff: noqa: ANN001, ANN202, PIE808
# mypy: disable-error-code="no-untyped-def, untyped-decorator"

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit(do_not_specialize=["pixels", "height", "width", "height_out", "width_out"])
def _convolve(
    x,
    weight,
    expand,
    bias,
    residual,
    out,
    pixels,
    height,
    width,
    height_out,
    width_out,
    channels,
    columns,
    filters,
    KERNEL_WIDTH: tl.constexpr,
    TAPS: tl.constexpr,
    STRIDE_Y: tl.constexpr,
    STRIDE_X: tl.constexpr,
    PADDING_Y: tl.constexpr,
    PADDING_X: tl.constexpr,
    EXPANDS: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    HAS_RESIDUAL: tl.constexpr,
    RELU: tl.constexpr,
    WIDE: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_PIXELS: tl.constexpr,
    BLOCK_CHANNELS: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,
    BLOCK_FILTERS: tl.constexpr,
):
    """One tile of output pixels: a convolution to ``columns`` channels, then a 1x1 to ``filters`` if it expands.

    ``x``, ``residual`` and ``out`` are NHWC, ``weight`` is ``[taps * channels, columns]``, ``expand`` is
    ``[columns, filters]``. Bias, residual and ReLU are applied to the result before it goes to memory.
    """
    rows = tl.program_id(0) * BLOCK_PIXELS + tl.arange(0, BLOCK_PIXELS)
    inside = rows < pixels
    line = rows // width_out
    image = line // height_out
    top = (line - image * height_out) * STRIDE_Y - PADDING_Y
    left = (rows - line * width_out) * STRIDE_X - PADDING_X
    corner = (image * height + top) * width + left
    written = rows
    if WIDE:
        corner = corner.to(tl.int64)
        written = rows.to(tl.int64)
    corner = corner * channels
    lanes = tl.arange(0, BLOCK_CHANNELS)
    column = tl.program_id(1) * BLOCK_COLUMNS + tl.arange(0, BLOCK_COLUMNS)
    narrow = tl.full((BLOCK_PIXELS, BLOCK_COLUMNS), 0.0, tl.float32)
    blocks = channels // BLOCK_CHANNELS
    for step in range(0, TAPS * blocks):
        tap = step // blocks
        channel = (step - tap * blocks) * BLOCK_CHANNELS
        dy = tap // KERNEL_WIDTH
        dx = tap - dy * KERNEL_WIDTH
        y = top + dy
        column_x = left + dx
        is_image = inside & (y >= 0) & (y < height) & (column_x >= 0) & (column_x < width)
        pixel = corner + ((dy * width + dx) * channels + channel)
        a = tl.load(x + pixel[:, None] + lanes[None, :], mask=is_image[:, None], other=0.0)
        b = tl.load(weight + (step * BLOCK_CHANNELS + lanes)[:, None] * columns + column[None, :])
        narrow = tl.dot(a, b, narrow, input_precision=PRECISION)
    if EXPANDS:
        inner = narrow.to(x.dtype.element_ty)
        for start in range(0, filters, BLOCK_FILTERS):
            chosen = start + tl.arange(0, BLOCK_FILTERS)
            is_filter = chosen < filters
            b = tl.load(
                expand + column[:, None] * filters + chosen[None, :], mask=is_filter[None, :], other=0.0
            )
            wide = tl.dot(inner, b, input_precision=PRECISION)
            if HAS_BIAS:
                wide += tl.load(bias + chosen, mask=is_filter, other=0.0).to(tl.float32)[None, :]
            there = inside[:, None] & is_filter[None, :]
            at = (written * filters)[:, None] + chosen[None, :]
            if HAS_RESIDUAL:
                wide += tl.load(residual + at, mask=there, other=0.0).to(tl.float32)
            if RELU:
                wide = tl.where(wide < 0, 0.0, wide)  # NaN stays, as torch has it
            tl.store(out + at, wide.to(out.dtype.element_ty), mask=there)
    else:
        is_filter = column < filters
        if HAS_BIAS:
            narrow += tl.load(bias + column, mask=is_filter, other=0.0).to(tl.float32)[None, :]
        there = inside[:, None] & is_filter[None, :]
        at = (written * filters)[:, None] + column[None, :]
        if HAS_RESIDUAL:
            narrow += tl.load(residual + at, mask=there, other=0.0).to(tl.float32)
        if RELU:
            narrow = tl.where(narrow < 0, 0.0, narrow)
        tl.store(out + at, narrow.to(out.dtype.element_ty), mask=there)


@dataclass(frozen=True)
class Tiles:
    """Sizes of one program of the kernel; of channels and filters at most so many."""

    pixels: int
    channels: int
    filters: int
    warps: int
    stages: int


# By the number of output pixels up to which they are tried: few need small tiles to keep all multiprocessors busy.
_TILES = {
    4096: (
        Tiles(16, 64, 64, 4, 4),
        Tiles(16, 128, 64, 4, 3),
        Tiles(16, 128, 32, 4, 4),
        Tiles(32, 64, 64, 4, 4),
    ),
    32768: (
        Tiles(64, 64, 128, 4, 3),
        Tiles(64, 64, 64, 4, 4),
        Tiles(64, 128, 128, 8, 3),
        Tiles(32, 128, 64, 4, 3),
        Tiles(32, 64, 64, 4, 4),
    ),
    2**62: (
        Tiles(128, 64, 128, 8, 3),
        Tiles(128, 64, 64, 8, 3),
        Tiles(128, 64, 64, 4, 3),
        Tiles(64, 64, 64, 4, 4),
        Tiles(64, 64, 128, 4, 3),
    ),
}
_chosen: dict[tuple[object, ...], Tiles] = {}


@dataclass(frozen=True)
class Geometry:
    """Of a convolution: kernel, stride and padding along the two axes."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]

    def size_out(self, size: tuple[int, int]) -> tuple[int, int]:
        """Height and width of the output."""
        high, wide = (
            (length + 2 * padding - kernel) // stride + 1
            for length, kernel, stride, padding in zip(
                size, self.kernel, self.stride, self.padding, strict=True
            )
        )
        return high, wide


def convolve(
    x: Tensor,
    weight: Tensor,
    expand: Tensor | None,
    bias: Tensor | None,
    filters: int,
    geometry: Geometry,
    *,
    residual: Tensor | None = None,
    relu: bool = False,
) -> Tensor:
    """Convolve NHWC images, and map the result by a 1x1 that reads it before it goes to memory.

    Parameters
    ----------
    x
        ``[N, C, H, W]`` in ``torch.channels_last``, C a multiple of 16.
    weight
        ``[taps * C, columns]``; columns a power of two, at least 16.
    expand
        ``[columns, filters]``, or None for a convolution alone.
    filters
        Channels of the output.
    residual
        Added to the output; of its shape and type, in ``torch.channels_last``.
    relu
        Whether ReLU is applied, after that.
    """
    images, channels, height, width = x.shape
    size = geometry.size_out((height, width))
    out = torch.empty(
        (images, filters, *size), dtype=x.dtype, device=x.device, memory_format=torch.channels_last
    )
    pixels, columns = images * size[0] * size[1], weight.shape[1]
    if not pixels:
        return out

    def launch(tiles: Tiles) -> None:
        block_channels = next(
            size for size in (128, 64, 32, 16) if size <= tiles.channels and channels % size == 0
        )
        block_columns = columns if expand is not None else min(columns, tiles.filters)
        grid = (-(-pixels // tiles.pixels), columns // block_columns)
        _convolve[grid](
            x,
            weight,
            weight if expand is None else expand,
            weight if bias is None else bias,
            weight if residual is None else residual,
            out,
            pixels,
            height,
            width,
            *size,
            channels,
            columns,
            filters,
            KERNEL_WIDTH=geometry.kernel[1],
            TAPS=geometry.kernel[0] * geometry.kernel[1],
            STRIDE_Y=geometry.stride[0],
            STRIDE_X=geometry.stride[1],
            PADDING_Y=geometry.padding[0],
            PADDING_X=geometry.padding[1],
            EXPANDS=expand is not None,
            HAS_BIAS=bias is not None,
            HAS_RESIDUAL=residual is not None,
            RELU=relu,
            WIDE=max(x.numel(), out.numel()) >= 2**31 - 2**20,
            PRECISION="ieee" if x.dtype == torch.float32 else "tf32",
            BLOCK_PIXELS=tiles.pixels,
            BLOCK_CHANNELS=block_channels,
            BLOCK_COLUMNS=block_columns,
            BLOCK_FILTERS=min(tiles.filters, triton.next_power_of_2(max(filters, 16))),
            num_warps=tiles.warps,
            num_stages=tiles.stages,
        )

    without = (expand is None, bias is None, residual is None, not relu)
    key = (x.shape, x.dtype, x.device, columns, filters, geometry, without)
    if key not in _chosen:
        choices = next(tiles for most, tiles in _TILES.items() if pixels <= most)
        _chosen[key] = _fastest(launch, choices) if x.device.type == "cuda" else choices[-1]
    launch(_chosen[key])
    return out


def _fastest(launch: Any, choices: tuple[Tiles, ...]) -> Tiles:
    """Time each; those that need more memory than a multiprocessor has, or do not compile, are left out."""
    times: dict[Tiles, float] = {}
    complaint: Exception | None = None
    for tiles in choices:
        try:
            launch(tiles)
        except (triton.TritonError, RuntimeError) as error:
            complaint = error
            continue
        times[tiles] = min(_milliseconds(launch, tiles) for _ in range(3))
    if not times:
        assert complaint is not None
        raise complaint
    return min(times, key=lambda tiles: times[tiles])


def _milliseconds(launch: Any, tiles: Tiles, repeats: int = 10) -> float:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(repeats):
        launch(tiles)
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end)) / repeats
