"""A target of latency: predicted, measured, corrected, and refused where nothing keeps it."""

import json
import re
from dataclasses import replace

import pytest
import torch
from torch import nn

import tuckertree as tt
from tests import networks
from tests.latency.cases import timed
from tuckertree._base.errors import TuckertreeError, UnreachableTargetError, UsageError
from tuckertree.io.report.verdict import latency_warnings
from tuckertree.latency import NetworkBenchmark, fuse_as_planned, meet_target
from tuckertree.latency import network as network_module
from tuckertree.latency import target as target_module
from tuckertree.latency.target import TOO_FAST, TOO_SLOW, predicted_share
from tuckertree.measure import Timing
from tuckertree.planning import Budget, Options, Plan, make_plan, survey_candidates, take_inventory
from tuckertree.runtimes import get_runtime

IMAGE = torch.zeros(1, 3, 32, 32)


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    model = networks.UNet().eval()
    return (model, *timed(model, IMAGE))


def measuring(inventory, realised):
    """What a network takes that saves ``realised`` times what its layers promise."""
    asked = []

    def measure(plan):
        asked.append(plan)
        share = 1 - realised * (1 - predicted_share(plan, inventory))
        return Timing(share, share, share)

    return measure, asked


@pytest.mark.parametrize("latency", [0.8, "1.5x"])
def test_the_layers_times_are_within_the_budget(network, latency):
    _, inventory, candidates, _, options = network
    rule = Budget(latency=latency)
    plan = make_plan(inventory, candidates, rule, options)
    assert 0.9 * rule.latency < predicted_share(plan, inventory) <= rule.latency
    assert plan.optimality.gap < 0.1
    assert set(plan.optimality.multipliers) == {"latency"}
    for layer in plan.layers:
        if layer.seconds:
            assert layer.seconds[1] <= layer.seconds[0]
        assert (layer.form is not None) == (layer.method != "dense")


@pytest.mark.parametrize("realised", [0.6, 1.0, 1.4])
def test_a_prediction_that_is_off_is_corrected_until_the_target_holds(network, realised):
    _, inventory, candidates, _, options = network
    rule = Budget(latency="1.4x")
    measure, asked = measuring(inventory, realised)
    plan = meet_target(inventory, candidates, rule, options, measure)
    found = plan.latency
    assert TOO_FAST <= found.measured / rule.latency <= TOO_SLOW
    assert found.measured == pytest.approx(1 - realised * (1 - found.predicted))
    assert len(asked) == found.rounds == (1 if realised == 1 else 2)
    assert plan.rule == rule.describe()
    assert plan.rule["latency"] == pytest.approx(1 / 1.4)


def test_of_the_plans_that_keep_the_target_the_one_that_loses_least_is_taken(network):
    _, inventory, candidates, _, options = network
    shares, found = iter([0.5, 0.8, 0.6, 0.75, 0.65]), []

    def measure(plan):
        share = next(shares)
        found.append((share, plan.optimality.loss))
        return Timing(share, share, share)

    plan = meet_target(inventory, candidates, Budget(latency=0.7), options, measure)
    assert len(found) > 2
    assert plan.optimality.loss == min(loss for share, loss in found if share <= 0.7)


@pytest.mark.parametrize("realised", [0.5, 1.0])
def test_an_impossible_target_is_refused_with_the_nearest_that_was_measured(network, realised):
    _, inventory, candidates, _, options = network
    measure, asked = measuring(inventory, realised)
    with pytest.raises(UnreachableTargetError, match="cannot be met") as refused:
        meet_target(inventory, candidates, Budget(latency="50x"), options, measure)
    nearest = float(re.search(r"measured is ([\d.e-]+)", str(refused.value))[1])
    fastest = [measure(plan).median for plan in list(asked)]
    assert nearest == pytest.approx(min(fastest), rel=1e-3)
    least = sum(float(layer.seconds.max() - layer.seconds.min()) for layer in candidates.values())
    assert nearest == pytest.approx(1 - realised * least / inventory.seconds, rel=0.02)


@pytest.mark.parametrize("realised", [0.5, 1.0])
def test_what_a_refusal_advises_is_within_reach_and_best_effort_keeps_the_nearest(network, realised):
    _, inventory, candidates, _, options = network
    measure, asked = measuring(inventory, realised)
    with pytest.raises(UnreachableTargetError, match="--best-effort") as refused:
        meet_target(inventory, candidates, Budget(latency="50x"), options, measure)
    advised = re.search(r"try --latency (\d+\.\dx)", str(refused.value))[1]
    nearest = min(measure(plan).median for plan in list(asked))
    assert 0 <= 1 / nearest - float(advised[:-1]) < 0.1
    plan = meet_target(inventory, candidates, Budget(latency=advised), options, measure)
    assert not plan.latency.missed
    plan = meet_target(inventory, candidates, Budget(latency="50x", best_effort=True), options, measure)
    assert (plan.latency.missed, plan.latency.measured) == (True, pytest.approx(nearest))
    assert any("was not reached" in line for line in latency_warnings(plan))


def test_best_effort_is_nothing_where_the_network_gets_no_faster_or_a_target_is_kept(network):
    _, inventory, candidates, _, options = network
    rule = Budget(latency="2x", best_effort=True)
    with pytest.raises(UnreachableTargetError, match="gets no faster"):
        meet_target(inventory, candidates, rule, options, lambda _: Timing(1.1, 1.1, 1.1))
    measure, _ = measuring(inventory, 1.0)
    plan = meet_target(inventory, candidates, replace(rule, latency="1.2x"), options, measure)
    assert not plan.latency.missed
    with pytest.raises(UsageError, match="best effort belongs to a budget of latency"):
        Budget(macs=0.5, best_effort=True)


def test_a_target_that_the_fastest_plan_keeps_is_not_refused_for_disturbed_measurements(network):
    _, inventory, candidates, _, options = network
    true, asked = measuring(inventory, 1.0)
    disturbed = iter([1.5, 1.6, 1.7])

    def measure(plan):
        return Timing(*[true(plan).median * next(disturbed, 1.0)] * 3)

    plan = meet_target(inventory, candidates, Budget(latency=0.75), options, measure)
    assert plan.latency.measured <= TOO_SLOW * 0.75
    assert len(asked) > 3


def test_a_plan_that_seems_far_too_fast_is_measured_again(network):
    _, inventory, candidates, _, options = network
    measure, asked = measuring(inventory, 1.0)

    def disturbed(plan):
        true = measure(plan)
        return Timing(0.09, 0.09, 0.09) if len(asked) == 1 else true

    plan = meet_target(inventory, candidates, Budget(latency=0.8), options, disturbed)
    assert asked[0] == asked[1]
    assert TOO_FAST * 0.8 <= plan.latency.measured <= TOO_SLOW * 0.8


def test_a_network_that_gets_no_faster_is_refused(network):
    _, inventory, candidates, _, options = network
    with pytest.raises(UnreachableTargetError, match=r"nearest that was measured is 1\.1"):
        meet_target(inventory, candidates, Budget(latency="2x"), options, lambda _: Timing(1.1, 1.1, 1.1))


def test_one_measurement_without_gain_does_not_lead_to_the_fastest_plan(network):
    _, inventory, candidates, _, options = network
    true, asked = measuring(inventory, 1.0)
    disturbed = iter([1.3])

    def measure(plan):
        return Timing(*[true(plan).median * next(disturbed, 1.0)] * 3)

    plan = meet_target(inventory, candidates, Budget(latency="1.2x"), options, measure)
    assert 0.85 <= plan.latency.measured * 1.2 <= TOO_SLOW
    assert not any(true(each).median < 0.6 for each in list(asked))


def test_a_target_that_takes_all_there_is_says_so(network):
    _, inventory, candidates, _, options = network
    saving = sum(float(layer.seconds.max() - layer.seconds.min()) for layer in candidates.values())
    measure, _ = measuring(inventory, 0.5)
    most = 1 - 0.5 * saving / inventory.seconds
    for target, fastest in ((most + 1e-4, True), ((1 + most) / 2, False)):
        plan = meet_target(inventory, candidates, Budget(latency=target), options, measure)
        assert plan.latency.fastest is fastest
        assert any("close to the fastest plan" in line for line in latency_warnings(plan)) is fastest


def test_without_times_a_budget_of_latency_chooses_nothing():
    model = networks.small_cnn()
    inventory = take_inventory(model, IMAGE)
    candidates = survey_candidates(model, inventory, Options())
    with pytest.raises(UsageError, match="needs measured times"):
        make_plan(inventory, candidates, Budget(latency="2x"))


@pytest.mark.parametrize(
    "budget",
    [
        {"latency": "0.5x"},
        {"latency": 2},
        {"latency": "fast"},
        {"latency": "2x", "macs": 0.5},
        {"latency": "2x", "batch": 0},
        {"runtime": "torch"},
    ],
    ids=str,
)
def test_budgets_that_cannot_be_are_refused(budget):
    with pytest.raises(UsageError):
        Budget(**budget)


def test_plans_keep_their_forms_and_times_and_read_those_that_have_none(network):
    _, inventory, candidates, _, options = network
    measure, _ = measuring(inventory, 1.0)
    plan = meet_target(inventory, candidates, Budget(latency=0.7), options, measure)
    assert Plan.loads(plan.dumps()) == plan
    data = json.loads(plan.dumps())
    del data["latency"]
    for layer in data["layers"]:
        del layer["form"], layer["seconds"]
    bare = Plan.from_json(data)
    assert [layer.ranks for layer in bare.layers] == [layer.ranks for layer in plan.layers]
    assert bare.latency is None
    number = next(i for i, layer in enumerate(plan.layers) if layer.form)
    for form in ([], [1, 0], [0, 9], ["0"], 3):
        spoilt = json.loads(plan.dumps())
        spoilt["layers"][number]["form"] = form
        with pytest.raises(TuckertreeError, match=rf"plan\.layers\.{number}(: |\.)form"):
            Plan.from_json(spoilt)
    for latency in ({"runtime": "torch"}, {**plan.to_json()["latency"], "rounds": "2"}, 3):
        with pytest.raises(TuckertreeError, match=r"plan\.latency"):
            Plan.from_json({**data, "latency": latency})


def test_a_network_fused_as_planned_computes_what_its_chains_do(network):
    model, inventory, candidates, _, options = network
    plan = make_plan(inventory, candidates, Budget(latency=0.6), options)
    chains = tt.apply(model, plan)
    planned = fuse_as_planned(chains, plan)
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.allclose(planned(x), chains(x), atol=1e-4)
    for layer in plan.compressed:
        assert planned.get_submodule(layer.name).cuts == layer.form
    with pytest.raises(TuckertreeError, match="as the plan says"):
        fuse_as_planned(model, plan)


def test_a_network_is_timed_at_the_batch_asked_for_and_left_alone():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(8 * 36, 4)).train()
    benchmark = NetworkBenchmark(model, torch.randn(2, 3, 8, 8), get_runtime("torch", threads=1), batch=3)
    assert (benchmark.batch, benchmark.example_batch) == (3, 2)
    assert benchmark.seconds() > 0
    assert model.training
    with pytest.raises(UsageError, match="tensors by position"):
        NetworkBenchmark(model, {"x": IMAGE}, get_runtime("torch", threads=1))


def test_compress_for_onnxruntime_measures_and_keeps_what_it_measured(tmp_path, monkeypatch):
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    # How fast this machine is, and how steady, is not what is tested: any time is taken for the target.
    monkeypatch.setattr(target_module, "TOO_SLOW", 1e9)
    monkeypatch.setattr(target_module, "TOO_FAST", 0.0)
    monkeypatch.setattr(network_module, "_ROUNDS", 5)
    model = tt.build("demo")
    rule = tt.Budget(latency="1.02x", runtime="onnxruntime", threads=1)
    result = tt.compress(model, IMAGE, rule, include="layer3.2.conv2")
    found = result.plan.latency
    assert found.runtime.startswith("onnxruntime ")
    assert (found.threads, found.batch, found.rounds) == (1, 1, 1)
    assert 0 < found.predicted < 1
    assert 0 < found.low <= found.measured <= found.high
    assert result.summary()["latency"]["measured"] == found.measured
    for text in ("faster measured", "predicted from layers", "run as"):
        assert text in str(result)
    folder = result.save(tmp_path / "saved")
    assert json.loads((folder / "report.json").read_text())["latency"]["predicted"] == found.predicted
    loaded = tt.load(folder)
    planned = fuse_as_planned(loaded, result.plan)
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.allclose(planned(x), loaded(x), atol=1e-3)


def test_the_plan_of_one_machine_can_be_applied_without_a_timer(network):
    model, inventory, candidates, _, options = network
    plan = make_plan(inventory, candidates, Budget(latency=0.7), options)
    again = tt.apply(model, Plan.loads(plan.dumps()))
    bare = replace(plan, layers=tuple(replace(layer, form=None) for layer in plan.layers))
    assert len(list(fuse_as_planned(again, bare).modules())) == len(list(again.modules()))


@pytest.mark.parametrize("methods", [("cp",), ("cp", "svd")])
def test_cp_is_timed_and_run_in_its_forms(methods):
    model = nn.Sequential(nn.Conv2d(32, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 48, 3, padding=1)).eval()
    image = torch.zeros(1, 32, 16, 16)
    inventory, candidates, _, options = timed(model, image, methods=methods)
    plan = make_plan(inventory, candidates, Budget(latency=0.7), options)
    assert {layer.method for layer in plan.compressed} <= {*methods}
    assert any(layer.method == "cp" for layer in plan.compressed) or "svd" in methods
    chains = tt.apply(model, plan)
    planned = fuse_as_planned(chains, plan)
    x = torch.randn(2, 32, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(planned(x), chains(x), rtol=1e-4, atol=1e-4)
    for layer in plan.compressed:
        assert planned.get_submodule(layer.name).cuts == layer.form
