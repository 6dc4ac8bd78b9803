"""The costs that planning counts are those that torch counts when the layers run."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from tests.core.layers.cases import Case, cases
from tests.strategies import examples
from tuckertree.core.layers import LayerSpec, chain_macs, chain_parameters, factorize

pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")


def macs_run(module: nn.Module, x: Tensor) -> int:
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        module(x)
    return counter.get_total_flops() // 2


def sizes(case: Case) -> tuple[list[int], list[int]]:
    """Spatial sizes before and after a layer; for a linear layer the positions it is applied to."""
    y = case.layer(case.x)
    if isinstance(case.layer, nn.Linear):
        return list(case.x.shape[:-1]), list(y.shape[:-1])
    return list(case.x.shape[2:]), list(y.shape[2:])


@examples(120)
@given(cases(batches=((1,),)), st.integers(1, 4))
def test_counted_costs_are_the_costs_torch_runs(case, rank):
    size_in, size_out = sizes(case)
    assert LayerSpec.of(case.layer).macs(size_in, size_out) == macs_run(case.layer, case.x)
    chain = factorize(case.layer, case.method, case.ranks(rank))
    assert chain_macs(chain.stages, size_in, size_out) == macs_run(chain, case.x)
    assert chain_parameters(chain.stages) == sum(stage.weight.numel() for stage in chain)
    assert chain_parameters(chain.stages) == chain.factors().parameters


def test_a_stride_of_a_pointwise_layer_is_taken_where_the_tensor_is_smallest():
    down = factorize(nn.Conv2d(8, 8, 1, stride=2), "svd", (2,))
    up = factorize(nn.ConvTranspose2d(8, 8, 1, stride=2), "svd", (2,))
    assert (down.reduce.stride, down.expand.stride) == ((2, 2), (1, 1))
    assert (up.reduce.stride, up.expand.stride) == ((1, 1), (2, 2))
