"""The weight of a chain: what is set or written is carried out exactly or refused, never lost; reading is as with any tensor."""

import copy
import pickle

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from tests.core.layers.cases import FULL, cases
from tests.core.layers.chains import LAYERS, assert_unchanged, chain_of, state
from tests.strategies import examples
from tuckertree._base.errors import TuckertreeError
from tuckertree.core.layers import densify, factorize

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*torch.jit"),
    pytest.mark.filterwarnings("ignore:.*(weight|spectral)_norm.*is deprecated"),
    pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor"),
    pytest.mark.filterwarnings("ignore:torch.ao.quantization is deprecated"),
    pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths"),
]


@examples(80)
@given(cases(), st.integers(1, 4), st.integers(0, 2**20))
def test_scaled_outputs_go_into_the_last_stage_and_leave_the_others(case, rank, seed):
    layer, x, method = case
    chain = factorize(layer, method, case.ranks(rank))
    dense, before = densify(chain), state(chain)
    kernel = chain.dense.kernel(chain.weight.detach())
    scale = torch.randn(*kernel.shape[:2], dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    scaled = chain.dense.weight(kernel * scale.view(*scale.shape, *(1 for _ in kernel.shape[2:])))
    chain.weight = nn.Parameter(scaled)
    dense.weight = nn.Parameter(scaled)
    with torch.no_grad():
        torch.testing.assert_close(chain(x), dense(x), rtol=1e-9, atol=1e-9)
    changed = {name for name, value in chain.state_dict().items() if not torch.equal(value, before[name])}
    assert changed <= {f"{chain.stages[-1].name}.weight"}


@pytest.mark.parametrize("method", ["ht2", "svd"])
@pytest.mark.parametrize("name", LAYERS)
def test_a_weight_of_the_chains_ranks_is_taken_and_any_other_refused(name, method):
    chain, x = chain_of(name, 2, method)
    other, _ = chain_of(name, 2, method)
    with torch.no_grad():
        for stage in other:
            stage.weight.normal_(generator=torch.Generator().manual_seed(2))
    chain.weight = nn.Parameter(other.weight)
    chain.bias = other.bias
    torch.testing.assert_close(chain(x), other(x), rtol=1e-4, atol=1e-4)
    before = state(chain)
    with pytest.raises(
        TuckertreeError, match="cannot have that weight, only one that its stages multiply out to"
    ):
        chain.weight = nn.Parameter(torch.randn_like(chain.weight))
    assert_unchanged(chain, before)
    full, _ = chain_of(name, FULL)
    full.weight = nn.Parameter(torch.randn_like(full.weight))


WRITES = {
    "mul_": lambda w: w.data.mul_(-3),
    "no_grad": lambda w: torch.no_grad()(w.mul_)(0.5),
    "copy_": lambda w: w.data.copy_(w.data * 2),
    "setitem": lambda w: w.data.__setitem__(slice(None), w.data * 2),
    "one filter": lambda w: w.data[1].mul_(2),
    "each filter": lambda w: [row.mul_(number) for number, row in enumerate(w.data)],
    "unbound": lambda w: torch._foreach_mul_(list(w.data.unbind(0)), 2.0),
    "view": lambda w: w.detach().view(-1).mul_(2),
    "transposed": lambda w: w.detach().T.mul_(2),
    "out": lambda w: torch.mul(w.data, 2, out=w.data),
    "zeros": nn.init.zeros_,
    "constant": lambda w: nn.init.constant_(w, 0.3),
    "inputs": lambda w: w.data[:, 0].zero_(),
}


@pytest.mark.filterwarnings("ignore:The use of `x.T`")
@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize("name", ["conv1d", "conv2d", "conv3d", "linear"])
def test_what_is_written_into_the_weight_is_what_the_chain_then_computes(name, write):
    chain, x = chain_of(name)
    dense = densify(chain)
    WRITES[write](chain.weight)
    WRITES[write](dense.weight)
    torch.testing.assert_close(chain(x), dense(x), rtol=1e-4, atol=1e-4)
    assert not torch.equal(chain.weight, chain_of(name)[0].weight)


REFUSED = {
    "normal": nn.init.normal_,
    "kaiming": nn.init.kaiming_normal_,
    "xavier": nn.init.xavier_uniform_,
    "truncated": nn.init.trunc_normal_,
    "orthogonal": nn.init.orthogonal_,
    "one number": lambda w: w.data.view(-1).__setitem__(0, 7.0),
    "masked": lambda w: w.data.masked_fill_(w.data > 0, 0),
    "in-place function": lambda w: nn.functional.relu(w.data, inplace=True),
    "half of it": lambda w: w.data.chunk(2)[0].add_(1),
    "noise": lambda w: torch.no_grad()(w.add_)(torch.randn(w.shape)),
    "not finite": lambda w: w.data.mul_(torch.nan),
    "data of another shape": lambda w: setattr(w, "data", torch.zeros(3)),
    "data of another type": lambda w: setattr(w, "data", w.data.double()),
}


@pytest.mark.parametrize("write", REFUSED)
@pytest.mark.parametrize("name", ["conv1d", "conv2d groups", "conv3d", "linear", "transposed 2d"])
def test_what_the_chain_cannot_follow_is_refused_in_one_line_and_taken_back(name, write):
    chain, _ = chain_of(name, 2)
    before, weight = state(chain), chain.weight
    values = weight.detach().clone()
    with pytest.raises(TuckertreeError) as caught:
        REFUSED[write](weight)
    assert "\n" not in str(caught.value)
    assert_unchanged(chain, before)
    assert torch.equal(weight.detach().clone(), values)


def test_numpy_sees_the_weight_and_cannot_write_into_it():
    chain, _ = chain_of("conv2d")
    array = chain.weight.detach().numpy()
    torch.testing.assert_close(torch.tensor(array), chain.weight.detach().clone())
    with pytest.raises(ValueError, match="read-only"):
        array[0] = 0


def test_a_weight_read_before_the_chain_changed_cannot_be_written_into():
    chain, _ = chain_of("conv2d")
    weight = chain.weight
    with torch.no_grad():
        chain.expand.weight.mul_(2)
    before = state(chain)
    with pytest.raises(TuckertreeError, match="has changed since this weight of it was read"):
        weight.data.mul_(2)
    assert_unchanged(chain, before)


# Reading is as it is with any tensor.


def test_results_are_plain_tensors_with_a_graph_that_reaches_the_stages():
    chain, _ = chain_of("conv2d")
    weight = chain.weight
    assert type(weight.shape) is torch.Size
    assert {
        type(y) for y in (weight * 2, weight.sum(), weight.clone(), weight.double(), weight @ weight.mT)
    } == {torch.Tensor}
    weight.square().sum().backward()
    assert all(stage.weight.grad.any() for stage in chain)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda w: pickle.loads(pickle.dumps(w))])
def test_copies_of_the_weight_are_tensors_of_their_own(copied):
    chain, _ = chain_of("conv2d")
    before = state(chain)
    twin = copied(chain.weight.detach())
    assert type(twin) is torch.Tensor
    twin.zero_()
    assert_unchanged(chain, before)


def test_a_parameter_made_of_the_weight_is_an_ordinary_one_of_its_own():
    chain, x = chain_of("conv2d")
    before, layer = state(chain), nn.Conv2d(6, 8, 3, padding=1, bias=False)
    layer.weight = nn.Parameter(chain.weight)
    assert type(layer.weight) is nn.Parameter
    torch.testing.assert_close(layer(x), chain(x), rtol=1e-4, atol=1e-4)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    layer(x).square().sum().backward()
    optimizer.step()
    assert type(copy.deepcopy(layer).weight) is nn.Parameter
    assert_unchanged(chain, before)


@pytest.mark.parametrize(
    "freeze",
    [
        lambda w: w.requires_grad_(False),
        lambda w: w.requires_grad_(requires_grad=False),
        lambda w: setattr(w, "requires_grad", False),
    ],
)
def test_freezing_the_weight_freezes_the_stages(freeze):
    chain, _ = chain_of("conv1d")
    freeze(chain.weight)
    assert not chain.weight.requires_grad
    assert [name for name, parameter in chain.named_parameters() if parameter.requires_grad] == [
        "expand.bias"
    ]
