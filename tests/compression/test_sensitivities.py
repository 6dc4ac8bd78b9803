"""What each layer alone costs: measured on the network itself, and only for layers that may change."""

import copy
import json

import pytest
import torch

import tuckertree as tt
from tests import networks
from tests.compression.accuracy.test_accuracy_budget import classifier, images
from tuckertree.calibration import collect_metrics, output_distances
from tuckertree.calibration.sensitivity import whitened_chain
from tuckertree.network.surgery import replace_layers
from tuckertree.planning import take_inventory

IMAGE = torch.zeros(1, 3, 8, 8)


@pytest.fixture(scope="module")
def model():
    return classifier()


@pytest.fixture(scope="module")
def given():
    return images(70, 6)


@pytest.fixture(scope="module")
def found(model, given):
    return tt.sensitivity(model, IMAGE, calibration=given, progress=False)


def test_each_layer_is_listed_once_with_at_most_half_of_its_macs(found):
    inventory = tt.plan(classifier(), IMAGE, tt.Ranks({"*": 1})).layers
    assert [layer.name for layer in found.layers] == [layer.name for layer in inventory]
    for layer in found.layers:
        assert layer.macs[1] * 2 <= layer.macs[0] or layer.reason
        assert (layer.method == "dense") == (layer.distance is None) == (not layer.ranks)
    depthwise = found.layers[2]
    assert depthwise.method == "dense"
    assert depthwise.reason


@pytest.mark.parametrize("name", ["0", "2", "5", "8"])
def test_the_distance_is_that_of_the_network_with_this_layer_alone_compressed(model, given, found, name):
    row = next(layer for layer in found.layers if layer.name == name)
    (layer,) = [layer for layer in take_inventory(model, IMAGE).layers if layer.name == name]
    metric = collect_metrics(model, [layer], given, gradients=False)[name]
    small = replace_layers(model, {name: whitened_chain(model, layer, row.method, row.ranks, metric)})
    (distance,) = output_distances(model, (small,), given, in_units=True)
    assert row.distance == pytest.approx(distance, rel=1e-5)
    with torch.no_grad():
        equal = (model(given).argmax(1) == small(given).argmax(1)).double().mean()
    assert row.agreement == pytest.approx(float(equal))


def test_of_one_layer_the_cost_does_not_depend_on_the_others(model, given, found):
    alone = tt.sensitivity(model, IMAGE, calibration=given, include="2", progress=False)
    one, other = (next(x for x in each.layers if x.name == "2") for each in (alone, found))
    assert one == other
    assert [layer.reason for layer in alone.layers if layer.name == "0"] == ["not included"]


def test_answers_that_stay_equal_are_counted(found, given):
    tried = [layer for layer in found.layers if layer.distance is not None]
    for layer in tried:
        assert layer.agreement * len(given) == pytest.approx(round(layer.agreement * len(given)))
        low, high = layer.agreement_interval
        assert low <= layer.agreement <= high
    assert found.images == len(given)


def test_less_costs_less(model, given):
    gentle, harsh = (
        tt.sensitivity(model, IMAGE, calibration=given, factor=factor, progress=False) for factor in (1.3, 6)
    )
    for one, other in zip(gentle.layers, harsh.layers, strict=True):
        if one.distance is not None:
            assert one.distance <= other.distance
    assert harsh.worst(1)[0].distance == max(x.distance for x in harsh.layers if x.distance is not None)


@pytest.mark.filterwarnings("ignore:fewer calibration patches")
def test_outputs_that_are_no_classes_have_a_distance_alone():
    found = tt.sensitivity(
        networks.UNet().eval(), torch.zeros(1, 3, 16, 16), calibration=images(4, 0).repeat(1, 1, 2, 2),
        include="up*", progress=False,
    )  # fmt: skip
    assert {layer.agreement for layer in found.layers} == {None}
    assert sum(layer.distance is not None for layer in found.layers) == 2


def test_the_model_is_not_touched_and_the_result_is_json_and_a_table(model, given, found):
    before = copy.deepcopy(model.state_dict())
    again = tt.sensitivity(model, IMAGE, calibration=given, progress=False)
    assert again == found
    assert all(torch.equal(before[name], x) for name, x in model.state_dict().items())
    rows = json.loads(json.dumps(found.to_json()))["layers"]
    assert [row["distance"] for row in rows] == [layer.distance for layer in found.layers]
    text = str(found)
    assert all(layer.name in text for layer in found.layers)


@pytest.mark.parametrize("factor", [1, 0.5, -2, float("nan"), float("inf"), True, "2x"])
def test_a_factor_that_asks_for_nothing_is_refused(model, given, factor):
    with pytest.raises(tt.UsageError, match="by a factor above 1"):
        tt.sensitivity(model, IMAGE, calibration=given, factor=factor)
