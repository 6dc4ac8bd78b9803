"""The same kernel from other factors.

Between two cores any invertible matrix may be put together with its inverse; the kernel does not change.
Factors fitted to inputs come out badly conditioned to train. Here the cores are made orthonormal, which only
takes QR decompositions of the cores, and then all scaled to the same spectral norm.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tuckertree.core.decomposition.factors import Factors


def balance(factors: Factors) -> Factors:
    """The same kernel and ranks, with orthonormal cores but one, all of equal spectral norm in each group.

    The cores left of the last but one are orthonormal in their columns ``[(rank, modes), rank]``, the last
    one in its rows ``[rank, (modes, rank)]``, both up to scale; the weight is in the last but one.

    Returns
    -------
    Factors
        In float64. A kernel of zeros is given back as it is.
    """
    cores = list(factors.to(torch.float64))
    for i in range(len(cores) - 2):
        core = cores[i].flatten(1, -2)
        if core.shape[1] < core.shape[2]:
            continue  # it cannot be orthonormal at this rank
        basis, upper = torch.linalg.qr(core)
        cores[i] = basis.reshape(cores[i].shape)
        cores[i + 1] = (upper @ cores[i + 1].flatten(2)).reshape(cores[i + 1].shape)
    last = cores[-1].flatten(2)
    if last.shape[1] <= last.shape[2]:
        basis, upper = torch.linalg.qr(last.mT)
        cores[-1] = basis.mT.reshape(cores[-1].shape)
        cores[-2] = (cores[-2].flatten(1, -2) @ upper.mT).reshape(cores[-2].shape)
    return Factors(tuple(_equal_norms(cores)))


def _equal_norms(cores: list[Tensor]) -> list[Tensor]:
    norms = [_spectral_norm(core, columns=i < len(cores) - 1) for i, core in enumerate(cores)]
    mean = torch.stack(norms).log().mean(0).exp()
    if not mean.all():
        return cores
    scales = [
        (mean / norm).reshape(-1, *(1 for _ in core.shape[1:]))
        for norm, core in zip(norms, cores, strict=True)
    ]
    return [(core * scale).contiguous() for core, scale in zip(cores, scales, strict=True)]


def _spectral_norm(core: Tensor, *, columns: bool) -> Tensor:
    matrix = core.flatten(1, -2) if columns else core.flatten(2)
    return torch.linalg.matrix_norm(matrix, ord=2)
