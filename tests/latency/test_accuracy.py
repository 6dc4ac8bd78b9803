"""The fastest network that keeps an accuracy, on a machine of known speed."""

from types import SimpleNamespace

import pytest
import torch

import tuckertree as tt
from tests.compression.accuracy.test_accuracy_budget import classifier, images
from tests.latency.cases import machine, timed
from tuckertree.compression.networks import TorchNetwork
from tuckertree.core.layers import METHODS
from tuckertree.latency import LatencyTarget, least_latency
from tuckertree.measure import Timing
from tuckertree.planning import Budget

IMAGE = torch.zeros(1, 3, 32, 32)


def large(count, seed):
    return images(count, seed).repeat_interleave(4, 2).repeat_interleave(4, 3)


class KnownMachine:
    """Takes for a network what its layers take."""

    batch = example_batch = 1
    runtime = SimpleNamespace(name="machine", version="1", threads=1, precision="fp32")

    def __init__(self, seconds):
        self._seconds = seconds

    def seconds(self):
        return self._seconds

    def __call__(self, plan):
        saved = sum(layer.seconds[0] - layer.seconds[1] for layer in plan.layers if layer.seconds)
        share = 1 - saved / self._seconds
        return Timing(share, share, share)


@pytest.fixture
def network():
    """A network that is timed on that machine, its inventory and its candidates."""
    model = classifier()
    inventory, candidates, _, _ = timed(model, IMAGE)
    found = TorchNetwork(model, IMAGE)
    found.target = lambda rule: LatencyTarget(rule, KnownMachine(inventory.seconds), machine())
    return found, inventory, candidates


def test_the_fastest_network_that_keeps_the_accuracy_is_searched_for_by_measured_time(network):
    rule = Budget(max_drop=6.0, cheapest="latency", threads=1)
    found, inventory, candidates = network
    x = large(600, 1)
    with torch.no_grad():
        logits = found.module(x)
    sure = (logits.topk(2).values @ torch.tensor([1.0, -1.0])).topk(200).indices
    data = x[sure], logits[sure].argmax(1)
    result = tt.compress(
        found, None, rule, calibration=large(64, 2), data=data, round_to=4, methods=METHODS, progress=False
    )
    steps = [step for step in result.accuracy.steps if step.loss]
    assert result.accuracy.held
    assert result.plan.latency.measured <= 1.02 * result.accuracy.proofs[-1].share
    assert result.plan.latency.measured == result.accuracy.proofs[-1].latency
    assert result.plan.rule["cheapest"] == "latency"
    assert all(step.latency <= 1.02 * step.share for step in steps)
    assert min(step.share for step in result.accuracy.steps) >= least_latency(inventory, candidates) - 1e-9
    assert f"time {1 / result.plan.latency.measured:.2f}x" in str(result.accuracy.proofs[-1])


def test_no_network_is_faster_than_its_layers_can_be(network):
    _, inventory, candidates = network
    fastest = sum(float(layer.seconds.min()) for layer in candidates.values())
    rest = inventory.seconds - sum(float(layer.seconds.max()) for layer in candidates.values())
    assert least_latency(inventory, candidates) == pytest.approx(
        (fastest + rest) / inventory.seconds,
        rel=1e-4,  # whole nanoseconds
    )
