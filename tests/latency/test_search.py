"""The plan of a few measurements beside that of all, on a machine of known speed."""

from functools import cache

import pytest
import torch
from torch import nn

from tests.latency.cases import machine, seconds_of
from tuckertree.core.layers import FusionVariant, chain_stages, get_method
from tuckertree.latency import TimeModel
from tuckertree.latency.fit import NOISE, Prior, fit_times
from tuckertree.latency.pool import Pool, worth_timing
from tuckertree.measure import Timing
from tuckertree.planning import Budget, Options, make_plan, survey_candidates, take_inventory
from tuckertree.runtimes import CandidateTime

IMAGE = torch.zeros(1, 3, 64, 64)


def network():
    """Layers of many sizes, some that take next to nothing."""
    torch.manual_seed(0)
    widths = [
        (3, 32, 7),
        (32, 64, 3),
        (64, 64, 1),
        (64, 96, 3),
        (96, 96, 3),
        (96, 32, 1),
        (32, 128, 3),
        (128, 128, 3),
    ]
    layers = []
    for number, (inputs, outputs, size) in enumerate(widths):
        layers += [nn.Conv2d(inputs, outputs, size, 1 + number % 2, size // 2), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, 40)).eval()


def uneven(noise=0.02):
    """A machine that runs wide layers faster than narrow ones, and is never quite the same."""
    exact, generator = machine(), torch.Generator().manual_seed(0)

    def benchmark(shape, forms):
        found = []
        for time, form in zip(exact(shape, forms), forms, strict=True):
            narrowest = min(min(stage.spec.out_channels, stage.spec.in_channels) for stage in form.stages)
            shaken = 1 + noise * float(torch.rand((), generator=generator) - 0.5)
            found.append(time.seconds * (1 + 2 / narrowest) * shaken)
        ratios = [seconds / found[0] for seconds in found]
        return [CandidateTime(found[0] * r, Timing(r, r * (1 - noise), r * (1 + noise))) for r in ratios]

    return benchmark


@cache
def surveyed(benchmark, **settings):
    model, options = network(), Options(round_to=4)
    inventory = take_inventory(model, IMAGE)
    timer = TimeModel(benchmark(), methods=options.of_layers, **settings)
    timer.measure(inventory.layers)
    return inventory, survey_candidates(model, inventory, options, timer=timer), timer, options


@pytest.mark.parametrize("benchmark", [machine, uneven])
@pytest.mark.parametrize("latency", [0.75, 0.5])
def test_the_plan_of_a_few_measurements_is_about_that_of_all(benchmark, latency):
    inventory, candidates, few, options = surveyed(benchmark)
    _, every_candidate, every, _ = surveyed(benchmark, tolerance=0)
    assert few.timed < 0.45 * every.timed
    total = sum(float(every.seconds(layer, None, torch.ones(1, 0))) for layer in inventory.layers)
    inventory = type(inventory)(inventory.layers, inventory.parameters, inventory.macs, total)
    plan = make_plan(inventory, candidates, Budget(latency=latency), options)

    def share(plan, timer):
        seconds = 0.0
        for layer, planned in zip(inventory.layers, plan.layers, strict=True):
            ranks, stages = torch.ones(1, 0), None
            if planned.method != "dense":
                ranks = torch.tensor([planned.ranks])
                stages = get_method(planned.method).scaling(layer.spec, planned.form)
            seconds += float(timer.seconds(layer, stages, ranks))
        return seconds / total

    by_all = share(plan, every)
    assert by_all == pytest.approx(latency, rel=0.03)
    best = make_plan(inventory, every_candidate, Budget(latency=by_all), options)
    assert plan.optimality.loss <= 1.03 * best.optimality.loss


def test_a_layer_that_takes_next_to_nothing_is_timed_dense_alone():
    big, small = nn.Conv2d(64, 64, 3, padding=1), nn.Conv2d(64, 16, 1)
    asked = []

    def benchmark(shape, forms):
        asked.append((forms[0].stages[0].spec.out_channels, len(forms)))
        return machine()(shape, forms)

    model = nn.Sequential(big, nn.AvgPool2d(32), small)
    timer = TimeModel(benchmark)
    timer.measure(take_inventory(model, torch.zeros(1, 64, 64, 64)).layers)
    assert [count for channels, count in asked if channels == 16] == [1]
    assert sum(count for channels, count in asked if channels == 64) > 3


def test_the_order_of_the_layers_and_what_was_measured_before_do_not_matter_to_what_is_timed():
    *_, first, _ = surveyed(machine)
    layers = take_inventory(network(), IMAGE).layers
    second = TimeModel(machine(), methods=Options().of_layers)
    second.measure(layers[::-1])
    second.measure(layers)
    assert second.timed == first.timed


def test_what_has_been_measured_well_is_not_worth_measuring_again_and_what_was_measured_badly_tells_nothing():
    rows = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 2.0]], dtype=torch.float64)
    prior = Prior(torch.ones(2, dtype=torch.float64), torch.full((2,), 0.5, dtype=torch.float64))
    assert worth_timing(rows, prior, {}, 0.1) == [2, 0]
    assert worth_timing(rows, prior, {0: 0.0, 2: 0.0}, 0.1) == []
    assert worth_timing(rows, prior, {0: 0.0, 2: 9.0}, 0.1) == [1]
    assert worth_timing(rows, prior, {0: 0.0}, 0) == [2, 1]
    assert worth_timing(rows, prior, {}, 2.0) == []


def test_what_no_time_says_is_as_the_prior_has_it():
    mean = torch.tensor([2.0, 3.0], dtype=torch.float64)
    rows, times = torch.tensor([[1.0, 0.0]], dtype=torch.float64), torch.tensor([4.0], dtype=torch.float64)
    found = fit_times(rows, times, torch.zeros(1), Prior(mean, mean))
    assert found.tolist() == pytest.approx([4.0, 3.0], rel=2 * NOISE)


def test_layers_are_guessed_from_others_in_the_unit_of_their_own_dense_time():
    spec = nn.Conv2d(32, 32, 3, padding=1)
    layer = take_inventory(nn.Sequential(spec), torch.zeros(1, 32, 16, 16)).layers[0]
    form = FusionVariant((), chain_stages(layer.spec, (), ()))
    row = torch.tensor([[1.0, 1, 0, 0, 0, layer.macs, 0, 0]], dtype=torch.float64)
    pool = Pool()
    pool.add(
        row, torch.tensor([seconds_of(form, layer.spec, layer.calls[0])], dtype=torch.float64), torch.zeros(1)
    )
    assert float(row[0] @ pool.prior(row).mean) == pytest.approx(1.0, abs=0.05)
