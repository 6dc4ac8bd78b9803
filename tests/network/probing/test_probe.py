"""Models that do more with their layers than call them: equal, dense with the reason, or refused in one line."""

import random
import re

import numpy as np
import pytest
import torch
from torch import nn

import tuckertree as tt
from tests.network.probing.cases import (
    DENSE,
    EQUAL,
    REFUSED,
    AsksForType,
    Merging,
    Net,
    Noisy,
    NoisyAndAsking,
    Routed,
    Trembling,
)
from tuckertree.measure import preserved
from tuckertree.network.probing import ProbeWarning, probe
from tuckertree.planning import Options, take_inventory

IMAGE = torch.randn(2, 3, 10, 10, generator=torch.Generator().manual_seed(0))
NEW = torch.randn(2, 3, 10, 10, generator=torch.Generator().manual_seed(1))
EXACT = tt.ErrorBound(1e-3)


def outputs(model, x):
    torch.manual_seed(0)
    with torch.no_grad():
        y = model(x)
    return y["out"] if isinstance(y, dict) else y


def state(model):
    """All that must be as it was: modes, tensors, attributes, hooks, random numbers."""
    tensors = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    flags = {name: (p.requires_grad, p.data_ptr(), p.grad) for name, p in model.named_parameters()}
    own = {
        name: {key: len(value) if hasattr(value, "__len__") else value for key, value in vars(module).items()}
        for name, module in model.named_modules()
    }
    chance = torch.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    return tensors, flags, own, chance


def assert_same_state(now, before):
    assert now[0].keys() == before[0].keys()
    assert all(torch.equal(now[0][name], before[0][name]) for name in now[0])
    assert now[1:] == before[1:]


def assert_equal(model, other):
    torch.testing.assert_close(outputs(model, NEW), outputs(other, NEW), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("kind", EQUAL, ids=lambda kind: kind.__name__)
def test_a_model_that_its_copy_repeats_is_compressed_and_equal_and_loaded_so(kind, training, tmp_path):
    model = kind().train(training)
    before = state(model)
    result = tt.compress(model, IMAGE, EXACT)
    assert_same_state(state(model), before)
    assert result.plan.compressed
    assert {m.training for m in result.model.modules()} == {training}
    loaded = tt.load(result.save(tmp_path / "out"), into=kind())
    assert_equal(loaded, kind().eval())
    assert_equal(result.model, model)


@pytest.mark.parametrize("kind", DENSE, ids=lambda kind: kind.__name__)
def test_a_layer_that_a_chain_cannot_stand_for_is_left_with_the_reason(kind, tmp_path):
    model = kind().eval()
    before = state(model)
    result = tt.compress(model, IMAGE, EXACT)
    assert_same_state(state(model), before)
    assert [layer.name for layer in result.plan.compressed] == ["a"]
    assert re.search(DENSE[kind], result.plan.layers[1].reason)
    loaded = tt.load(result.save(tmp_path / "out"), into=kind())
    assert_equal(result.model, kind().eval())
    assert_equal(loaded, kind().eval())


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("kind", REFUSED, ids=lambda kind: kind.__name__)
def test_a_model_that_its_copy_does_not_repeat_is_refused_by_what_both_use(kind, training):
    model = kind().train(training)
    before = state(model)
    with pytest.raises(tt.TuckertreeError, match=f"cannot be compressed: a copy .*{REFUSED[kind]}") as found:
        tt.compress(model, IMAGE, EXACT)
    assert_same_state(state(model), before)
    assert "\n" not in str(found.value)


def test_a_model_that_is_never_the_same_is_compared_within_its_own_noise():
    with pytest.warns(ProbeWarning, match="two runs of the model itself are not the same"):
        result = tt.compress(Noisy().eval(), IMAGE, EXACT)
    assert [layer.name for layer in result.plan.compressed] == ["a", "b"]
    with pytest.warns(ProbeWarning):
        result = tt.compress(NoisyAndAsking().eval(), IMAGE, EXACT)
    assert [layer.name for layer in result.plan.compressed] == ["a"]


@pytest.mark.parametrize("modes", [(True, True), (True, False), (False, False)])
def test_adapters_that_merge_by_mode_are_left_to_the_bit(modes):
    model = Merging()
    model.train(modes[0])
    model.norm.train(modes[1])
    before = state(model)
    result = tt.compress(model, IMAGE, energy=0.5)
    assert_same_state(state(model), before)
    assert [(n, m.training) for n, m in model.named_modules()][-1] == ("norm", modes[1])
    assert (result.model.training, result.model.norm.training) == modes


def test_what_a_forward_writes_is_taken_back_where_it_fails():
    model = Trembling().eval()
    before = state(model)
    assert len(tt.compress(model, IMAGE, EXACT).plan.compressed) == 2
    assert_same_state(state(model), before)
    assert vars(model).keys() == vars(Trembling()).keys()
    assert not model.array.any()
    with pytest.raises(ValueError, match="not in training"), preserved(model):
        model.train()(IMAGE)
    assert_same_state(state(model), before)


def test_only_layers_that_may_be_compressed_are_tried():
    inventory = take_inventory(model := AsksForType().eval(), IMAGE)
    assert probe(model, inventory, IMAGE, Options(exclude=("b",))) == inventory
    skip_reasons = [layer.skip_reason for layer in probe(model, inventory, IMAGE).layers]
    assert not skip_reasons[0]
    assert skip_reasons[1]


def test_layers_that_only_together_change_the_model_are_not_all_left_dense():
    class Either(Net):
        def forward(self, x):
            chains = sum(not isinstance(layer, nn.Conv2d) for layer in (self.a, self.b))
            return super().forward(x) * (2 if chains == 2 else 1)

    plan = tt.compress(Either().eval(), IMAGE, EXACT).plan
    assert [layer.name for layer in plan.compressed] == ["a"]


@pytest.mark.parametrize(
    ("inputs", "takes"),
    [
        (torch.zeros(2, 3, 10, 10), lambda net, x: net(x)),
        (torch.rand(2, 3, 10, 10), lambda net, x: net(x) if 0 <= x.min() <= x.max() <= 1 else None.no),
        (torch.randint(0, 9, (2, 300)), lambda net, x: net(torch.eye(9)[x].reshape(2, 3, 30, 30))),
        ({"x": IMAGE, "how": "plain"}, lambda net, x, how: net(x) if how == "plain" else None),
        (([IMAGE], 2), lambda net, xs, scale: net(xs[0]) * scale),
        (IMAGE, lambda net, x: net(x.mul_(2))),
    ],
    ids=["zeros", "range", "integers", "mapping", "nested", "in place"],
)
def test_inputs_of_any_kind_are_perturbed_and_left(inputs, takes):
    class Taking(Net):
        def forward(self, *args, **kwargs):
            return takes(super().forward, *args, **kwargs)

    kept = IMAGE.clone()
    assert len(tt.compress(Taking().eval(), inputs, EXACT).plan.compressed) == 2
    assert torch.equal(IMAGE, kept)


def test_a_model_that_goes_another_way_once_it_is_compressed_is_given_with_a_warning():
    model = Routed().eval()
    with torch.no_grad():
        model.a.weight.add_(0.1 * torch.randn_like(model.a.weight))
        model.sum.copy_(model.a(IMAGE).sum())
    with pytest.warns(ProbeWarning, match="takes another path on the example input: it does not call c$"):
        result = tt.compress(model, IMAGE, energy=0.6)
    assert [layer.name for layer in result.plan.compressed] == ["a", "c"]
