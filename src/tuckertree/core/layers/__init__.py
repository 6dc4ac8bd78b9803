"""One torch layer and the chain of layers it is factored into."""

from tuckertree.core.layers.chain import Chain, TransposedChain, densify, empty_chain, factorize
from tuckertree.core.layers.contraction import FusionVariant, contract_chain, fusion_variants
from tuckertree.core.layers.methods import METHODS, Choices, Method, get_method, known_methods, register
from tuckertree.core.layers.spec import DENSE_TYPES, LayerSpec, bias_of, weight_of
from tuckertree.core.layers.stages import (
    Scaling,
    Stage,
    chain_macs,
    chain_parameters,
    chain_stages,
    merged_stages,
    stage_macs,
)

__all__ = [
    "DENSE_TYPES",
    "METHODS",
    "Chain",
    "Choices",
    "FusionVariant",
    "LayerSpec",
    "Method",
    "Scaling",
    "Stage",
    "TransposedChain",
    "bias_of",
    "chain_macs",
    "chain_parameters",
    "chain_stages",
    "contract_chain",
    "densify",
    "empty_chain",
    "factorize",
    "fusion_variants",
    "get_method",
    "known_methods",
    "merged_stages",
    "register",
    "stage_macs",
    "weight_of",
]
