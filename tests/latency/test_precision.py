"""Precision as part of a plan: 8 bits alone first, chains where that is not enough, the nearest of what keeps the target."""

import re
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import tuckertree as tt
from tests import networks
from tests.latency.cases import machine, timed
from tuckertree._base.errors import UnreachableTargetError, UsageError
from tuckertree.compression import making
from tuckertree.compression.int8 import Int8Network
from tuckertree.compression.networks import TorchNetwork
from tuckertree.latency import LatencyNotKeptError, LatencyTarget, is_int8, is_measured, meet_target
from tuckertree.latency.target import predicted_share
from tuckertree.measure import Timing
from tuckertree.planning import Budget, Latency, Plan, make_plan

IMAGE = torch.zeros(1, 3, 32, 32)
LATENCY = Latency("machine 1", 1, 1, 1e-3, 0.4, 0.6, 0.6, 0.6, 0.6, 1)
METHODS = ("ht2", "tucker2", "spatial", "svd")


class KnownMachine:
    """Takes for a network what its layers take; in 8 bits everything is so many times faster."""

    batch = example_batch = 1

    def __init__(self, seconds, precision, share):
        self.runtime = SimpleNamespace(name="machine", version="1", threads=1, precision=precision)
        self._seconds, self.share, self.asked = seconds, share, []

    def seconds(self):
        return self._seconds

    def __call__(self, plan):
        self.asked.append(plan)
        saved = sum(layer.seconds[0] - layer.seconds[1] for layer in plan.layers if layer.seconds)
        return Timing(*[self.share - saved / self._seconds] * 3)


def slower(share):
    """Layers that take so large a share of their time, in every form."""
    benchmark = machine()
    return lambda shape, forms: [replace(t, seconds=share * t.seconds) for t in benchmark(shape, forms)]


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 32, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*layers, nn.Conv2d(32, 48, 3, padding=1), nn.ReLU(), nn.Conv2d(48, 8, 1)).eval()


@pytest.fixture
def network(model, monkeypatch):
    """A network on a machine where 8 bits alone take a share of its time, and how far 8 bits are from the original."""
    inventory, *_ = timed(model, IMAGE)
    found = TorchNetwork(model, IMAGE)
    found.share, found.machines, found.distance = 0.6, {}, 0.01

    def target(rule):
        (precision,) = rule.precision
        share = found.share if precision == "int8" else 1.0
        found.machines[precision] = KnownMachine(inventory.seconds, precision, share)
        return LatencyTarget(rule, found.machines[precision], slower(share))

    found.target = target
    found.in_int8 = lambda compressed, plan, images, fits=None: Int8Network(b"a file", 9, 0.1, found.distance)
    return found


def compress(network, latency, precision, **options):
    rule = Budget(latency=latency, threads=1, precision=precision, **options)
    images = torch.randn(24, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    return tt.compress(network, None, rule, calibration=images, methods=METHODS, round_to=4, progress=False)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_8_bits_alone_are_measured_first_and_enough_where_they_keep_the_target(network):
    result = compress(network, "1.5x", "int8")
    assert len(network.machines["int8"].asked) == 1
    assert not result.plan.compressed
    assert is_int8(result.plan)
    assert is_measured(result.plan)
    found = result.plan.latency
    assert (found.precision, found.measured, found.rounds) == ("int8", 0.6, 1)
    assert found.target == pytest.approx(1 / 1.5)
    assert result.int8.content == b"a file"
    assert "int8 alone" in str(result)
    assert "batch 1, int8" in str(result)
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(result.model(x), network.module(x))


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_chains_in_8_bits_make_up_for_what_8_bits_alone_lack(network):
    result = compress(network, "2.2x", "int8")
    found, machine_ = result.plan.latency, network.machines["int8"]
    assert not machine_.asked[0].compressed
    assert result.plan.compressed
    assert found.measured <= 1.02 / 2.2 < network.share
    assert found.measured == pytest.approx(found.predicted)  # against the dense network in single precision
    assert found.rounds == len(machine_.asked) >= 2
    assert [(each.precision, each.measured, each.kept) for each in result.precisions] == [
        ("int8", found.measured, True),
        ("int8 alone", network.share, False),
    ]
    assert "int8 alone 1.67x faster, too slow" in str(result)
    assert predicted_share(result.plan, SimpleNamespace(seconds=machine_.seconds()), network.share) == (
        pytest.approx(found.measured)
    )


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(("distance", "taken"), [(1e-4, "int8"), (10.0, "fp32"), (None, "fp32")])
def test_of_the_precisions_that_keep_the_target_the_nearest_is_taken(network, distance, taken):
    network.distance = distance
    result = compress(network, "1.5x", ("fp32", "int8"))
    assert result.plan.latency.precision == taken
    assert (result.int8 is not None) == (taken == "int8")
    assert [each.precision for each in result.precisions] == ["fp32", "int8"]
    assert [each.kept for each in result.precisions] == [True, True]
    assert result.precisions[1].distance == distance
    assert result.precisions[1].measured == 0.6
    assert result.plan.rule["precision"] == ["fp32", "int8"]
    assert result.summary()["precisions"][0]["distance"] == result.precisions[0].distance
    assert "precisions  fp32" in str(result)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_precision_that_cannot_keep_the_target_drops_out_and_is_named(network):
    network.share = 0.1
    result = compress(network, "9x", "fp32,int8")
    assert result.plan.latency.precision == "int8"
    kept = {each.precision: each.kept for each in result.precisions}
    assert kept == {"fp32": False, "int8": True}
    assert "too slow" in str(result)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_the_nearest_of_all_is_named_or_kept_where_none_keeps_the_target(network):
    with pytest.raises(LatencyNotKeptError, match="in int8") as refused:
        compress(network, "90x", "fp32,int8")
    assert "8 bits may do more" not in str(refused.value)
    nearest = float(re.search(r"measured is ([\d.e-]+)", str(refused.value))[1])
    assert nearest == pytest.approx(refused.value.nearest, rel=1e-3)
    result = compress(network, "90x", "fp32,int8", best_effort=True)
    assert result.plan.latency.missed
    assert result.plan.latency.precision == "int8"
    assert result.plan.latency.measured == pytest.approx(nearest, rel=1e-3)
    with pytest.raises(
        UnreachableTargetError, match=r"8 bits alone were measured at 1\.67x, with chains they may do more"
    ):
        compress(network, "90x", "fp32")


def test_chains_that_are_not_faster_than_8_bits_alone_are_never_returned(model):
    inventory, candidates, _, options = timed(model, IMAGE, slower(0.6))
    alone = replace(make_plan(inventory, {}, tt.Ranks({"*": 1}), options), latency=LATENCY)
    slow = Timing(0.65, 0.65, 0.65)
    rule = Budget(latency=0.4, precision="int8")
    with pytest.raises(LatencyNotKeptError, match=r"nearest that was measured is 0\.6 "):
        meet_target(inventory, candidates, rule, options, lambda _: slow, alone=alone)
    rule = replace(rule, best_effort=True)
    plan = meet_target(inventory, candidates, rule, options, lambda _: slow, alone=alone)
    assert not plan.compressed
    assert plan.latency.missed


def test_plans_in_single_precision_say_nothing_of_it_and_read_old_ones():
    plan = tt.plan(networks.small_cnn(), torch.zeros(1, 3, 16, 16), tt.Energy(0.5))
    plan = replace(plan, latency=LATENCY)
    assert Plan.loads(plan.dumps()) == plan
    assert "precision" not in plan.to_json()["latency"]
    other = replace(plan, latency=replace(plan.latency, precision="int8"))
    assert Plan.loads(other.dumps()) == other
    assert "precision" not in Budget(latency=0.5).describe()
    assert Budget(latency=0.5, precision=" fp32, int8").describe()["precision"] == ("fp32", "int8")


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({"macs": 0.5, "precision": "int8"}, "precision belongs to a budget of latency"),
        ({"max_drop": 1.0, "cheapest": "latency", "precision": "int8"}, "belongs to a budget of latency"),
        ({"latency": 0.5, "precision": ()}, "precision names one or several"),
        ({"latency": 0.5, "precision": "int8,int8"}, "precision names one or several"),
        ({"latency": 0.5, "precision": 8}, "precision names one or several"),
    ],
)
def test_precisions_that_mean_nothing_are_refused(rule, message):
    with pytest.raises(UsageError, match=message):
        Budget(**rule)


@pytest.mark.parametrize(
    ("rule", "inputs", "images", "message"),
    [
        ({"precision": "int4"}, IMAGE, True, "unknown precision 'int4'; known: fp32, int8"),
        ({"precision": "int8", "runtime": "torch"}, IMAGE, True, "in int8 on onnxruntime, openvino"),
        ({"precision": "fp32,int8"}, IMAGE, False, "int8 needs unlabelled images"),
        ({"precision": "int8"}, {"input": IMAGE}, True, "tensors by position"),
    ],
)
def test_what_cannot_run_in_8_bits_is_one_line_before_any_work(rule, inputs, images, message):
    calibration = torch.randn(4, 3, 32, 32) if images else None
    with pytest.raises(UsageError, match=message) as refused:
        tt.compress(
            networks.small_cnn(), inputs, Budget(latency=0.5, **rule), calibration=calibration, progress=False
        )
    assert "\n" not in str(refused.value)


def test_a_plan_is_of_one_precision():
    with pytest.raises(UsageError, match="one precision to plan"):
        tt.plan(networks.small_cnn(), IMAGE, Budget(latency=0.5, precision="fp32,int8"))


def test_a_network_with_nothing_to_factor_can_still_be_in_8_bits(network):
    result = compress_layers(network, exclude="*")
    assert not result.plan.compressed
    assert result.plan.latency.precision == "int8"
    assert {layer.reason for layer in result.plan.layers} == {"excluded"}


def compress_layers(network, **options):
    rule = Budget(latency="1.5x", threads=1, precision="fp32,int8")
    images = torch.randn(24, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    return tt.compress(network, None, rule, calibration=images, progress=False, **options)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_tuned_network_is_quantized_anew(network, monkeypatch):
    seen, network.distance = [], 0.0
    monkeypatch.setattr(making, "_tuned", lambda compressed, *_: (compressed, None))
    quantize = network.in_int8
    network.in_int8 = lambda *given: seen.append(given) or quantize(*given)
    compress_layers(network, tune=3)
    assert len(seen) == 2
