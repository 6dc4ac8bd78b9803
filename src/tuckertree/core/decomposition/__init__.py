"""The mathematics: kernels in, spectra and factors out. Imports torch alone."""

from tuckertree.core.decomposition.factors import Factors, decompose, feasible_ranks
from tuckertree.core.decomposition.kruskal import kruskal_convolution
from tuckertree.core.decomposition.matricization import METHODS, matricize, method_cuts
from tuckertree.core.decomposition.spectra import Bond, Spectra, kernel_spectra
from tuckertree.core.decomposition.truncation import (
    core_bonds,
    inner_tails,
    rotated_core,
    truncation_errors,
    tucker_tails,
)

__all__ = [
    "METHODS",
    "Bond",
    "Factors",
    "Spectra",
    "core_bonds",
    "decompose",
    "feasible_ranks",
    "inner_tails",
    "kernel_spectra",
    "kruskal_convolution",
    "matricize",
    "method_cuts",
    "rotated_core",
    "truncation_errors",
    "tucker_tails",
]
