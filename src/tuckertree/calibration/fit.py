r"""Factors that keep a layer's output, not its weight: the fit in the metric of its inputs.

The start is the usual decomposition of the kernel times ``S``, the square root of the channel moment, on its
mode C; ``S^-1`` goes into the first core and costs nothing at inference. Alternating least squares in the
full patch moment then lowers the error of the output itself (:mod:`tuckertree.calibration.refine`).
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor

from tuckertree._base.errors import UsageError
from tuckertree.calibration.moment import InputSecondMoment
from tuckertree.calibration.refine import SWEEPS, TOLERANCE, alternate
from tuckertree.core.decomposition import Factors, decompose, feasible_ranks
from tuckertree.core.decomposition.matricization import block_sizes
from tuckertree.core.decomposition.spectra import in_working_precision


def fit(
    kernel: Tensor,
    moment: InputSecondMoment,
    cuts: Sequence[int],
    ranks: Sequence[int],
    *,
    sweeps: int = SWEEPS,
    tolerance: float = TOLERANCE,
) -> Factors:
    """Factor a kernel so that the layer's output on the calibration images changes least.

    Parameters
    ----------
    kernel
        ``W[g, T, C, D1, ..., DN]``, nontrivial modes alone (``LayerSpec.kernel``).
    moment
        Of the layer's inputs.
    cuts, ranks
        As :func:`~tuckertree.core.decomposition.decompose`.
    sweeps, tolerance
        Of alternating least squares: at most so many, fewer where one lowers the squared error by less than
        this share. 0 sweeps give the channel-whitened decomposition alone. The SVD of the T-mode needs none:
        its optimum has a closed form.

    Returns
    -------
    Factors
        In float64.

    Raises
    ------
    UsageError
        If the moment is of another kernel, or the ranks do not fit the cuts.
    TuckertreeError
        If the kernel holds NaN or infinite values.
    """
    kernel = in_working_precision(kernel)
    _check_fit(kernel, moment)
    ranks = feasible_ranks(kernel.shape[1:], cuts, ranks)
    sigma = moment.patch.to(kernel.device)
    scale = sigma.diagonal(dim1=1, dim2=2).mean()
    if scale <= 0 or not kernel.any():
        return decompose(kernel, ranks, cuts)
    sigma = sigma / scale
    if tuple(cuts) == (kernel.ndim - 3,):
        return _whitened_svd(kernel, sigma, ranks[0])
    start = whitened(kernel, moment, cuts, ranks)
    if not sweeps:
        return start
    sizes = block_sizes(kernel.shape[1:], cuts)
    outputs = kernel.shape[1]
    cores = [
        core.reshape(core.shape[0], core.shape[1], size, core.shape[-1])
        for core, size in zip(start.cores[:-1], sizes, strict=False)
    ]
    last = start.cores[-1]
    cores.append(last.reshape(last.shape[0], last.shape[1], -1, outputs))
    cores, _ = alternate(cores, _as_matrix(kernel), sigma, sweeps=sweeps, tolerance=tolerance)
    return Factors(
        tuple(core.reshape(old.shape).contiguous() for core, old in zip(cores, start, strict=True))
    )


def whitened(kernel: Tensor, moment: InputSecondMoment, cuts: Sequence[int], ranks: Sequence[int]) -> Factors:
    """Decompose ``W`` times ``S`` on mode C and put ``S^-1`` in the first core, ``S`` the channel root."""
    kernel = in_working_precision(kernel)
    root, inverse = (matrix.to(kernel.device) for matrix in moment.channel_roots())
    first, *rest = decompose(torch.einsum("gtc...,gcd->gtd...", kernel, root), ranks, cuts)
    return Factors((torch.einsum("gcd,grd...->grc...", inverse, first).contiguous(), *rest))


def output_error(kernel: Tensor, factors: Factors, moment: InputSecondMoment) -> float:
    """Relative error of the layer's output, ``||(W - W^) Sigma^(1/2)||_F / ||W Sigma^(1/2)||_F``.

    Raises
    ------
    UsageError
        If the moment is of another kernel.
    """
    kernel = in_working_precision(kernel)
    _check_fit(kernel, moment)
    sigma = moment.patch.to(kernel.device)
    difference = kernel - factors.to(torch.float64).kernel().detach().to(kernel.device)
    lost, whole = (squared_output(each, sigma) for each in (difference, kernel))
    return (lost / whole) ** 0.5 if whole > 0 else 0.0


def squared_output(kernel: Tensor, sigma: Tensor) -> float:
    """Mean squared output ``tr(W Sigma W^T)`` over all groups."""
    matrix = _as_matrix(kernel)
    return max(float((matrix * (sigma @ matrix)).sum()), 0.0)


def _whitened_svd(kernel: Tensor, sigma: Tensor, rank: int) -> Factors:
    """Optimum of one cut before T: project the output on its leading principal directions.

    ``W^ = E E^T W`` with ``E`` the leading eigenvectors of the outputs' moment ``W Sigma W^T``; nothing is
    inverted. A trace of the identity in ``Sigma`` makes a sensible choice of directions no image has shown.
    """
    matrix = _as_matrix(kernel)
    seen = matrix.mT @ (sigma @ matrix) + 1e-9 * matrix.mT @ matrix
    basis = torch.linalg.eigh(seen)[1].flip(-1)[..., :rank]
    filters = (matrix @ basis).reshape(kernel.shape[0], 1, *kernel.shape[2:], rank)
    return Factors((filters.contiguous(), basis.mT.unsqueeze(-1).contiguous()))


def _as_matrix(kernel: Tensor) -> Tensor:
    """``W[g, T, C, D1, ..., DN]`` as ``[g, K, T]``."""
    return kernel.flatten(2).mT


def _check_fit(kernel: Tensor, moment: InputSecondMoment) -> None:
    groups, _, *columns = kernel.shape
    if moment.patch.shape[:2] != (groups, prod(columns)):
        raise UsageError(
            f"a moment {list(moment.patch.shape)} does not belong to a kernel {list(kernel.shape)}"
        )
