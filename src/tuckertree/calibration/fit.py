r"""Factors that keep a layer's output, not its weight: the fit in the metric of its inputs.

The start is the usual decomposition of the kernel times ``S``, the square root of the channel moment, on its
mode C; ``S^-1`` goes into the first core and costs nothing at inference. Alternating least squares in the
full patch moment then lowers the error of the output itself (:mod:`tuckertree.core.decomposition.refine`).
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor

from tuckertree._base.errors import UsageError
from tuckertree.calibration.metrics import weigh
from tuckertree.calibration.moment import InputSecondMoment
from tuckertree.core.decomposition import Factors
from tuckertree.core.decomposition.refine import SWEEPS, TOLERANCE
from tuckertree.core.decomposition.spectra import in_working_precision
from tuckertree.core.layers import Method


def fit(
    kernel: Tensor,
    moment: InputSecondMoment,
    method: Method,
    ranks: Sequence[int],
    *,
    sweeps: int = SWEEPS,
    tolerance: float = TOLERANCE,
) -> Factors:
    """Factor a kernel so that the layer's output on the calibration images changes least.

    A method that refines nothing (:meth:`Method.refine`) decomposes the kernel in the metric of the channels.

    Parameters
    ----------
    kernel
        ``W[g, T, C, D1, ..., DN]``, nontrivial modes alone (``LayerSpec.kernel``).
    moment
        Of the layer's inputs.
    method, ranks
        How it is factored.
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
        If the moment is of another kernel, or the ranks do not fit the method.
    TuckertreeError
        If the kernel holds NaN or infinite values.
    """
    kernel = in_working_precision(kernel)
    _check_fit(kernel, moment)
    ranks = method.feasible(kernel.shape[1:], ranks)
    sigma = moment.patch.to(kernel.device)
    scale = sigma.diagonal(dim1=1, dim2=2).mean()
    if scale <= 0 or not kernel.any():
        return method.factors(kernel, ranks)

    def start() -> Factors:
        return decompose_weighted(kernel, method, ranks, *moment.channel_roots())

    factors = method.refine(start, kernel, sigma / scale, ranks=ranks, sweeps=sweeps, tolerance=tolerance)
    return method.checked_factors(kernel, factors)


def decompose_weighted(
    kernel: Tensor, method: Method, ranks: Sequence[int], root: Tensor, inverse: Tensor
) -> Factors:
    """Decompose ``W`` times a root on mode C (:func:`weigh`) and put its inverse in the first core.

    The kernel is decomposed as it is where the first core does not take all channels of a group.
    """
    kernel = in_working_precision(kernel)
    first, *rest = method.factors(weigh(root.to(kernel.device), kernel, 2), ranks)
    if len(first) != len(kernel):
        return method.factors(kernel, ranks)
    return Factors((weigh(inverse.to(kernel.device), first, 2).contiguous(), *rest))


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


def _as_matrix(kernel: Tensor) -> Tensor:
    """``W[g, T, C, D1, ..., DN]`` as ``[g, K, T]``."""
    return kernel.flatten(2).mT


def _check_fit(kernel: Tensor, moment: InputSecondMoment) -> None:
    groups, _, *columns = kernel.shape
    if moment.patch.shape[:2] != (groups, prod(columns)):
        raise UsageError(
            f"a moment {list(moment.patch.shape)} does not belong to a kernel {list(kernel.shape)}"
        )
