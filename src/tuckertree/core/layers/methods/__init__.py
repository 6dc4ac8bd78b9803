"""How a kernel is factored: a registry with one entry for each method."""

from tuckertree.core.layers.methods.cp import CPMethod, DepthwiseMethod
from tuckertree.core.layers.methods.cut import HT2, SPATIAL, SVD, TUCKER2, CutMethod
from tuckertree.core.layers.methods.method import Choices, Method, get_method, known_methods, register

DEPTHWISE = DepthwiseMethod()

for _method in (HT2, TUCKER2, SPATIAL, SVD, DEPTHWISE, CPMethod()):
    register(_method)

METHODS = tuple(method.name for method in (HT2, TUCKER2, SPATIAL, SVD, DEPTHWISE))
"""The methods that a budget chooses among unless others are asked for."""

__all__ = [
    "METHODS",
    "CPMethod",
    "Choices",
    "CutMethod",
    "DepthwiseMethod",
    "Method",
    "get_method",
    "known_methods",
    "register",
]
