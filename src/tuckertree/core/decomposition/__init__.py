"""The mathematics: kernels in, spectra and factors out. Imports torch alone."""

from tuckertree.core.decomposition.balance import balance
from tuckertree.core.decomposition.factors import Factors, decompose, feasible_ranks
from tuckertree.core.decomposition.kruskal import kruskal_convolution
from tuckertree.core.decomposition.matricization import matricize
from tuckertree.core.decomposition.spectra import Bond, Spectra, kernel_spectra
from tuckertree.core.decomposition.truncation import (
    Truncations,
    core_bonds,
    inner_tails,
    rotated_core,
    truncation_errors,
    tucker_tails,
)

__all__ = [
    "Bond",
    "Factors",
    "Spectra",
    "Truncations",
    "balance",
    "core_bonds",
    "decompose",
    "feasible_ranks",
    "inner_tails",
    "kernel_spectra",
    "kruskal_convolution",
    "matricize",
    "rotated_core",
    "truncation_errors",
    "tucker_tails",
]
