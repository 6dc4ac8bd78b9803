"""The mathematics: kernels in, spectra and factors out. Imports torch alone."""

from tuckertree.decomposition.factors import Factors, decompose, feasible_ranks
from tuckertree.decomposition.kruskal import kruskal_convolution
from tuckertree.decomposition.matricization import METHODS, matricize, method_cuts
from tuckertree.decomposition.spectra import Bond, Spectra, kernel_spectra

__all__ = [
    "METHODS",
    "Bond",
    "Factors",
    "Spectra",
    "decompose",
    "feasible_ranks",
    "kernel_spectra",
    "kruskal_convolution",
    "matricize",
    "method_cuts",
]
