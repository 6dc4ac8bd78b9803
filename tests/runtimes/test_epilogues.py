"""What follows a chain becomes part of it where that is the same function, and stays where it is where it is not."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

import tuckertree as tt
from tuckertree.runtimes.epilogues import ChainWithEpilogue, with_epilogues

pytest.importorskip("triton")

SUMS = {
    "none": lambda out, _: out,
    "first": lambda out, other: out + other,
    "second": lambda out, other: torch.add(other, out),
    "method": lambda out, other: out.add(other),
    "scaled": lambda out, other: torch.add(out, other, alpha=2),
    "in place": lambda out, other: out.add_(other),
    "assigned": lambda out, other: _assigned(out, other),
    "into the other": lambda out, other: _assigned(other, out),
    "twice": lambda out, _: out + out,
    "broadcast": lambda out, other: out + other.mean((2, 3), keepdim=True),
}
ENDS = {
    "none": lambda out: out,
    "function": functional.relu,
    "in place": lambda out: functional.relu(out, inplace=True),
    "method": lambda out: out.relu(),
    "method in place": lambda out: out.relu_(),
    "another": functional.relu6,
}


def _assigned(a, b):
    a += b
    return a


def chain(channels=16, filters=16, method="ht2", ranks=(4, 6, 5), **options):
    return tt.factorize(nn.Conv2d(channels, filters, 3, padding=1, **options), method, ranks)


def lively(model):
    """Statistics, scales and shifts of norms as those of trained networks."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor, low in (
                (module.running_var, 0.5),
                (module.running_mean, -1.0),
                (module.weight, -1.0),
            ):
                if tensor is not None:
                    nn.init.uniform_(tensor, low, 2.0)
            if module.bias is not None:
                nn.init.normal_(module.bias)
    return model.eval()


class Net(nn.Module):
    """A chain and all that may follow it, between other layers."""

    def __init__(self, how):
        super().__init__()
        self.how = how
        self.stem, self.chain, self.norm = nn.Conv2d(3, 16, 1), chain(bias=how["bias"]), nn.BatchNorm2d(16)
        self.act, self.head = nn.ReLU(inplace=how["between"] == "module"), nn.Conv2d(16, 4, 1)

    def forward(self, x):
        how = self.how
        x = self.stem(x)
        out = self.chain(x)
        extra = out.mean() if how["watched"] == "chain" else 0
        if how["norm"]:
            out = self.norm(out)
        if how["watched"] == "norm":
            extra = out.mean()
        if how["between"] == "module":
            other = self.act(x)
        elif how["between"] == "function":
            other = x.mul_(2)
        elif how["between"] == "index":
            other = x
            x[:, 0] = 0
        else:
            other = x
        out = SUMS[how["sum"]](out, other)
        if how["watched"] == "sum":
            extra = out.mean()
        out = ENDS[how["end"]](out)
        return self.head(out) + extra + other.sum() + x.sum()


HOW = st.fixed_dictionaries(
    {
        "bias": st.booleans(),
        "norm": st.booleans(),
        "sum": st.sampled_from(sorted(SUMS)),
        "end": st.sampled_from(sorted(ENDS)),
        "between": st.sampled_from(["nothing", "module", "function", "index"]),
        "watched": st.sampled_from(["nothing", "nothing", "chain", "norm", "sum"]),
    }
)


@torch.no_grad()
def fused(model, *inputs):
    """The network with its epilogues; its outputs are compared."""
    network = with_epilogues(copy.deepcopy(model), inputs)
    wanted = model(*(x.clone() for x in inputs))
    torch.testing.assert_close(network(*(x.clone() for x in inputs)), wanted, rtol=1e-4, atol=1e-4)
    return network


@settings(max_examples=150, deadline=None)
@given(HOW)
def test_it_is_the_same_function_whatever_follows(how):
    torch.manual_seed(0)
    network = fused(lively(Net(how)), torch.randn(2, 3, 6, 5))
    assert sum(isinstance(module, ChainWithEpilogue) for module in network.modules()) == 1


@pytest.mark.parametrize("total", ["first", "second", "method", "in place", "assigned"])
@pytest.mark.parametrize("end", ["function", "in place", "method", "method in place"])
def test_norm_sum_and_relu_are_in_the_chain(total, end):
    how = {"bias": False, "norm": True, "sum": total, "end": end, "between": "nothing", "watched": "nothing"}
    network = fused(lively(Net(how)), torch.randn(2, 3, 6, 5))
    assert not any(isinstance(module, nn.BatchNorm2d) for module in network.modules())
    (found,) = (module for module in network.modules() if isinstance(module, ChainWithEpilogue))
    assert found.relu
    assert found.chain[-1].bias is not None
    (node,) = (node for node in network.graph.nodes if node.name.startswith("chain"))
    assert len(node.args) == 2
    assert [user.name for user in node.users] == ["head"]


@pytest.mark.parametrize(
    "changed",
    [
        {"sum": "broadcast"},
        {"sum": "scaled"},
        {"sum": "twice"},
        {"sum": "into the other"},
        {"between": "module"},
        {"between": "function"},
        {"watched": "norm"},
    ],
)
def test_what_would_be_another_function_stays_outside(changed):
    how = {"bias": False, "norm": True, "sum": "first", "end": "function", "between": "nothing"}
    network = fused(lively(Net({**how, "watched": "nothing", **changed})), torch.randn(2, 3, 6, 5))
    (node,) = (node for node in network.graph.nodes if node.name.startswith("chain"))
    assert len(node.args) == 1


def test_norms_behind_other_convolutions_are_folded_too_but_not_into_those_used_twice():
    torch.manual_seed(0)
    conv, norm, x = nn.Conv2d(16, 16, 1, bias=False), nn.BatchNorm2d(16), torch.randn(2, 16, 5, 5)

    def norms(*layers):
        return [type(m) for m in fused(lively(nn.Sequential(*layers)), x).modules()].count(nn.BatchNorm2d)

    assert norms(chain(), norm, nn.ReLU(), conv, nn.BatchNorm2d(16)) == 0
    assert norms(chain(), norm, nn.Conv2d(16, 16, 1), norm) == 0
    assert norms(conv, norm, conv, nn.ReLU()) == 1
    assert norms(nn.ReLU(), norm) == 1
    plain = nn.BatchNorm2d(16, affine=False)
    assert norms(chain(), plain) == 0


def test_layers_with_hooks_stay():
    seen = []
    model = lively(nn.Sequential(chain(), nn.BatchNorm2d(16), nn.ReLU()))
    for layer in model[1:]:
        layer.register_forward_hook(lambda *_: seen.append(1))
    network = fused(model, torch.randn(1, 16, 5, 5))
    assert len(seen) == 2 * 3  # traced with its shapes noted, run, and the original
    assert any(isinstance(module, nn.ReLU) for module in network.modules())
    model[0].register_forward_hook(lambda *_: None)
    assert not any(isinstance(m, ChainWithEpilogue) for m in fused(model, torch.randn(1, 16, 5, 5)).modules())


class Choosing(nn.Module):
    def __init__(self):
        super().__init__()
        self.chain, self.norm = chain(), nn.BatchNorm2d(16)

    def forward(self, x):
        x = self.norm(self.chain(x))
        return x if x.sum() > 0 else -x


def test_a_network_that_cannot_be_traced_has_chains_alone():
    network = fused(lively(Choosing()), torch.randn(1, 16, 5, 5))
    assert isinstance(network, Choosing)
    assert isinstance(network.chain, ChainWithEpilogue)
    assert not network.chain.relu


def test_a_chain_or_plain_layers_alone_are_a_network():
    plain = nn.Sequential(nn.Conv2d(16, 8, 1, bias=False), nn.Conv2d(8, 16, 3))
    for model in (chain(), plain):
        network = fused(model.eval(), torch.randn(1, 16, 5, 5))
        assert [isinstance(module, ChainWithEpilogue) for module in network.children()] == [True]
    network = fused(nn.Sequential(nn.Conv2d(16, 8, 3)).eval(), torch.randn(1, 16, 5, 5))
    assert not any(isinstance(module, ChainWithEpilogue) for module in network.modules())
