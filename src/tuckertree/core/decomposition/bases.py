r"""Other bases of the space between two stages of a chain.

Between two stages there is no nonlinearity, so any invertible matrix may be put after the first and its inverse before
the second: the same function, at no cost. What differs is how much is lost where the values in between and the weights
on both sides are rounded.
"""

from __future__ import annotations

from math import pi, prod, sqrt

import torch
from torch import Tensor

from tuckertree.core.decomposition.factors import Factors

_RIDGE = 1e-6
"""Of the mean second moment: directions that carry nothing must not be scaled up without bound."""
_RATIOS = 200
"""How much farther a range reaches up than down, from 1 to 100: so many are tried."""


def change_basis(left: Tensor, right: Tensor, basis: Tensor) -> tuple[Tensor, Tensor]:
    """Put a matrix after one row of :meth:`Factors.rows`, and its inverse before the next.

    Parameters
    ----------
    left, right
        ``[groups, inputs, *taps, outputs]``; the outputs of the one are the inputs of the other.
    basis
        ``[blocks, b, b]``: block ``i`` acts on the values ``b i`` to ``b (i + 1)``. Blocks must not reach over groups.

    Returns
    -------
    tuple of Tensor
        Both rows, of the same shapes.
    """
    size = basis.shape[-1]
    outputs = left.reshape(*left.shape[:-1], -1, size)
    after = torch.einsum("g...kb,gkcb->g...kc", outputs, basis.reshape(left.shape[0], -1, size, size))
    inputs = right.reshape(right.shape[0], -1, size, *right.shape[2:])
    inverse = torch.linalg.inv(basis).reshape(right.shape[0], -1, size, size)
    before = torch.einsum("gkb...,gkbc->gkc...", inputs, inverse)
    return after.reshape(left.shape), before.reshape(right.shape)


def gram_of_rest(rows: list[Tensor], size: int) -> Tensor:
    """How strongly the outputs answer to the values that some rows take, those of the chain from there on.

    Returns
    -------
    Tensor
        ``[blocks, b, b]`` for blocks of ``b`` values: inner products of what all rows together make of them.
    """
    rest = Factors.of_rows(rows) if len(rows) > 1 else None
    row = rest.merged(range(len(rows) - 1), ()).rows()[0] if rest else rows[0]
    maps = row.reshape(row.shape[0], -1, size, prod(row.shape[2:]))
    return torch.einsum("gkbn,gkcn->gkbc", maps, maps).reshape(-1, size, size)


def even_basis(moments: Tensor, gram: Tensor) -> Tensor:
    """A basis in which all values are equally large, and the outputs answer to all alike.

    Rounding adds an error to each value in proportion to the values' size, which the outputs see in proportion to how
    strongly they answer to it. The sum of these products is least where both are the same in every direction but for
    order (a balanced realisation), and none of the values stands out. So the moments and the Gram matrix are made the
    same diagonal, and this is then spread evenly by a rotation.

    Parameters
    ----------
    moments
        Second moments of the values ``[blocks, b, b]``.
    gram
        Of what follows, ``[blocks, b, b]`` (:func:`gram_of_rest`).

    Returns
    -------
    Tensor
        ``[blocks, b, b]``, float64.

    Examples
    --------
    >>> import torch
    >>> from tuckertree.core.decomposition.bases import even_basis
    >>> moments, gram = torch.diag(torch.tensor([4.0, 1.0])), torch.diag(torch.tensor([1.0, 9.0]))
    >>> basis = even_basis(moments[None], gram[None])
    >>> values = basis @ moments.double() @ basis.mT
    >>> torch.allclose(values[0].diagonal(), torch.full((2,), 2.5).double(), atol=1e-4)  # (2 + 3) / 2
    True
    """
    lower = torch.linalg.cholesky(_ridged(moments.double()))
    values, vectors = torch.linalg.eigh(lower.mT @ _ridged(gram.double()) @ lower)
    # z -> L^-1 z has moments 1; U' diagonalises how the outputs answer; the fourth root makes the two alike.
    scales = values.clamp_min(0.0).pow(0.25).diag_embed()
    balanced = scales @ vectors.mT @ torch.linalg.inv(lower)
    return flat_rotation(balanced.shape[-1]).to(balanced) @ balanced


def shared_range(low: Tensor, high: Tensor, answers: Tensor) -> Tensor:
    """Factors, some of them negative, by which channels fill one range whose steps the outputs answer to least.

    Rounded in steps of the range that all share, each channel gets the same error, which the outputs see less of the more the
    channel was scaled up. So each fills the range, with its longer side up, and what is left to choose is how much
    farther the range reaches up than down.

    Parameters
    ----------
    low, high
        What each channel reaches, ``[n]``, zero between them.
    answers
        How strongly the outputs answer to each, squared.

    Returns
    -------
    Tensor
        ``[n]``; the scaled channels reach down to -1 at most.

    Examples
    --------
    >>> import torch
    >>> from tuckertree.core.decomposition.bases import shared_range
    >>> low, high = torch.tensor([-1.0, -8.0]), torch.tensor([2.0, 4.0])
    >>> scales = shared_range(low, high, torch.ones(2))
    >>> (scales * low).round(decimals=1).tolist(), (scales * high).round(decimals=1).tolist()
    ([-1.0, 2.0], [2.0, -1.0])
    """
    longer, shorter = high.maximum(-low), high.minimum(-low)
    ratios = torch.logspace(0, 2, _RATIOS, dtype=longer.dtype, device=longer.device)[:, None]
    sizes = (longer / ratios).maximum(shorter).clamp_min(torch.finfo(torch.float32).tiny)
    lost = (1 + ratios[:, 0]).square() * (sizes.square() * answers).sum(1)
    return torch.where(high < -low, -1.0, 1.0) / sizes[lost.argmin()]


def _ridged(matrices: Tensor) -> Tensor:
    mean = matrices.diagonal(dim1=-2, dim2=-1).mean(-1).clamp_min(torch.finfo(torch.float32).tiny)
    return matrices + _RIDGE * mean[:, None, None] * torch.eye(matrices.shape[-1]).to(matrices)


def flat_rotation(size: int) -> Tensor:
    """An orthogonal matrix of entries about equally large: Hadamard's, times Hartley's for what is no power of two.

    Examples
    --------
    >>> import torch
    >>> from tuckertree.core.decomposition.bases import flat_rotation
    >>> matrix = flat_rotation(12)
    >>> torch.allclose(matrix @ matrix.mT, torch.eye(12).double()), bool((matrix.abs() < 2 / 12**0.5).all())
    (True, True)
    """
    odd, matrix = size, torch.ones(1, 1, dtype=torch.float64)
    while odd % 2 == 0:
        odd, matrix = odd // 2, torch.kron(torch.tensor([[1.0, 1.0], [1.0, -1.0]]).double(), matrix) / sqrt(2)
    angles = 2 * pi * torch.outer(torch.arange(odd), torch.arange(odd)).double() / odd
    return torch.kron(matrix, (angles.cos() + angles.sin()) / sqrt(odd))
