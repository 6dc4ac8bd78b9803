"""The form that is taken is the one the times say, and the network computes the same."""

import json

import pytest
import torch
from torch import nn

from tuckertree._base.errors import TuckertreeError, UsageError
from tuckertree.core.layers import Chain, factorize, fusion_variants
from tuckertree.io.report import contraction_table
from tuckertree.measure import Timing
from tuckertree.network.surgery import replace_layers
from tuckertree.runtimes import CandidateTime, LatencyCache, contract, get_runtime, time_candidates


@pytest.fixture
def network():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        dense = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(8, 8, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(8, 8, 3, padding=1),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(8, 4),
        ).double()
    chains = {name: factorize(dense.get_submodule(name), "ht2", (2, 4, 3)) for name in "24"}
    return replace_layers(dense, chains | {"7": factorize(dense[7], "svd", (2,))})


@pytest.fixture
def x():
    return torch.randn(2, 3, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def pretend(monkeypatch):
    """Let forms of so many layers take so many times the dense layer's time."""

    def set_ratios(ratios):
        def measured(modules, inputs, runtime, repeats, tick):
            counts = [len(module) if isinstance(module, Chain) else 1 for module in modules]
            return [
                {"seconds": ratios[n], "median": ratios[n], "low": ratios[n], "high": ratios[n] + 0.05}
                for n in counts
            ]

        monkeypatch.setattr("tuckertree.runtimes.candidates._measure", measured)

    return set_ratios


@pytest.mark.parametrize(
    ("ratios", "layers"),
    [
        ({1: 1.0, 2: 0.8, 3: 0.6, 4: 0.4}, (4, 2)),
        ({1: 1.0, 2: 0.5, 3: 0.6, 4: 0.7}, (2, 2)),
        ({1: 1.0, 2: 0.95, 3: 0.6, 4: 0.7}, (3, 1)),  # the linear layer gains less than noise
        ({1: 1.0, 2: 1.5, 3: 1.5, 4: 1.5}, (1, 1)),
    ],
)
def test_the_fastest_form_is_taken_or_the_layer_is_dense(network, x, pretend, ratios, layers):
    pretend(ratios)
    before = [id(module) for module in network.modules()]
    found = contract(network, get_runtime("torch", threads=1), x)
    assert [layer.name for layer in found.layers] == ["2", "4", "7"]
    taken = [len(layer.variant.stages) for layer in found.layers]
    assert taken == [layers[0], layers[0], layers[1]]
    for layer in found.layers:
        module = found.model.get_submodule(layer.name)
        assert isinstance(module, Chain) is not layer.variant.is_dense
    torch.testing.assert_close(found.model(x), network(x), rtol=0, atol=1e-12)
    assert [id(module) for module in network.modules()] == before
    assert contraction_table(found.layers).row_count == 3


def test_real_times_are_measured_once_for_each_distinct_layer(network, x, own_cache, monkeypatch):
    runtime = get_runtime("torch", threads=1)
    monkeypatch.setattr("tuckertree.runtimes.cache._WIDEST", float("inf"))  # however busy this machine is
    first = contract(network, runtime, x, repeats=5)
    entries = json.loads(own_cache.read_text())["entries"]
    assert len(entries) == 8 + 2  # two convolutions are alike
    assert all(time.seconds > 0 for layer in first.layers for _, time in layer.times)
    assert all(layer.times[0][1].ratio.median == 1 for layer in first.layers)
    monkeypatch.setattr("tuckertree.runtimes.candidates._measure", None)
    again = contract(network, runtime, x, repeats=5)
    assert again.layers == first.layers
    torch.testing.assert_close(first.model(x), network(x), rtol=0, atol=1e-12)


def test_only_what_is_missing_is_measured(pretend, monkeypatch, tmp_path):
    pretend({1: 1.0, 2: 0.5, 4: 0.25})
    layer = nn.Conv2d(4, 4, 3)
    chain = factorize(layer, "ht2", (2, 2, 2))
    cache, runtime = LatencyCache(tmp_path / "own.json"), get_runtime("torch", threads=1)
    x = torch.zeros(1, 4, 5, 5)
    time_candidates([layer, chain], x, runtime, cache=cache)
    other = factorize(layer, "spatial", (3,))
    times = time_candidates([layer, other, chain], x, runtime, cache=cache)
    assert [time.seconds for time in times] == [1.0, 0.5, 0.25]
    assert len(json.loads((tmp_path / "own.json").read_text())["entries"]) == 3
    # another input is another key
    pretend({1: 1.0, 4: 0.75})
    larger = time_candidates([layer, chain], torch.zeros(1, 4, 6, 6), runtime, cache=cache)
    assert larger[1].seconds == 0.75


def test_many_candidates_are_each_compared_with_the_first(monkeypatch):
    seen = []

    def measured(modules, inputs, runtime, repeats, tick):
        seen.append([module.out_channels for module in modules])
        return [dict.fromkeys(("seconds", "median", "low", "high"), float(m.out_channels)) for m in modules]

    monkeypatch.setattr("tuckertree.runtimes.candidates._measure", measured)
    candidates = [nn.Conv2d(2, channels, 1) for channels in range(1, 13)]
    times = time_candidates(candidates, torch.zeros(1, 2, 3, 3), get_runtime("torch", threads=1))
    assert [time.ratio.median for time in times] == list(range(1, 13))
    assert [chunk[0] for chunk in seen] == [1, 1]
    assert sum(len(chunk) - 1 for chunk in seen) == 11


def test_faster_means_more_than_noise():
    assert CandidateTime(0.5, Timing(0.9, 0.85, 0.97)).is_faster()
    assert not CandidateTime(0.5, Timing(0.9, 0.85, 0.99)).is_faster()
    assert not CandidateTime(0.5, Timing(0.5, 0.2, 1.2)).is_faster()


def test_what_cannot_be_contracted_is_refused(network, x):
    runtime = get_runtime("torch", threads=1)
    with pytest.raises(TuckertreeError, match="the model has no factored layer"):
        contract(nn.Linear(3, 3), runtime, torch.zeros(1, 3))
    with pytest.raises(TuckertreeError, match="does not run on the example input"):
        contract(network, runtime, torch.zeros(1, 4, 6, 6))
    with pytest.raises(UsageError, match="at least 5 rounds, got 4"):
        contract(network, runtime, x, repeats=4)


def test_every_form_is_offered(network, x, pretend):
    pretend({1: 1.0, 2: 0.8, 3: 0.6, 4: 0.4})
    found = contract(network, get_runtime("torch", threads=1), x)
    chain = network[2]
    names = {form.name for form in fusion_variants(chain.stages, chain.cuts)}
    assert {name for name, _ in found.layers[0].times} == names
