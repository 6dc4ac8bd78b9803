"""A budget may let hidden channels go, of torch models and of ONNX files, and all that follows knows of it."""

import copy
import json
import warnings
from dataclasses import replace

import pytest
import torch
from torch import nn

import tuckertree as tt
from tuckertree.calibration import Calibration, CalibrationWarning
from tuckertree.compression import OnnxNetwork
from tuckertree.compression.hidden import hidden_groups
from tuckertree.compression.objectives import Outputs, survey_network
from tuckertree.measure import count_macs, count_parameters
from tuckertree.network.hidden import find_hidden
from tuckertree.planning import Budget, Group, Options, make_plan, take_inventory
from tuckertree.planning.channels import CHANNELS, HiddenChannels, Pruning

IMAGES = torch.randn(24, 3, 12, 12, generator=torch.Generator().manual_seed(1))


class Inverted(nn.Module):
    def __init__(self, channels, hidden):
        super().__init__()
        self.branch = nn.Sequential(
            nn.Conv2d(channels, hidden, 1, bias=False), nn.BatchNorm2d(hidden), nn.ReLU6(),
            nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden, bias=False), nn.BatchNorm2d(hidden), nn.ReLU6(),
            nn.Conv2d(hidden, channels, 1, bias=False), nn.BatchNorm2d(channels),
        )  # fmt: skip

    def forward(self, x):
        return x + self.branch(x)


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), Inverted(16, 48), Inverted(16, 48),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 6),
    )  # fmt: skip
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.3)
            nn.init.normal_(module.running_mean, 0, 0.1)
            nn.init.uniform_(module.running_var, 0.5, 2)
    return model.eval()


@pytest.fixture(scope="module")
def result(network):
    return tt.compress(network, IMAGES[:1], tt.Budget(macs=0.6), calibration=IMAGES, methods=(CHANNELS,))


def distance(a, b):
    with torch.no_grad():
        return float(torch.dist(a(IMAGES), b(IMAGES)) / torch.linalg.norm(b(IMAGES)))


def test_the_plan_counts_what_is_there(network, result):
    plan = result.plan
    assert plan.pruned
    assert not plan.compressed
    assert plan.macs == (count_macs(network, IMAGES[:1]), count_macs(result.model, IMAGES[:1]))
    assert plan.parameters == (count_parameters(network), count_parameters(result.model))
    assert plan.macs[1] <= 0.6 * plan.macs[0]
    assert tt.Plan.loads(plan.dumps()) == plan
    assert plan.optimality.gap < 1


def test_what_is_left_makes_up_for_what_went(network, result):
    plain = tt.apply(network, result.plan)
    assert distance(result.model, network) < 0.5 * distance(plain, network)


def test_more_layers_go_where_low_rank_costs_more(network):
    chosen = tt.compress(network, IMAGES[:1], tt.Budget(macs=0.6), calibration=IMAGES)
    assert chosen.plan.macs[1] <= 0.6 * chosen.plan.macs[0]
    without = tt.compress(network, IMAGES[:1], tt.Budget(macs=0.6), calibration=IMAGES,
                          methods=("ht2", "tucker2", "spatial", "svd"))  # fmt: skip
    assert not without.plan.pruned
    assert chosen.plan.optimality.loss <= without.plan.optimality.loss * (1 + 1e-9)


@pytest.mark.parametrize("objective", ["outputs", "moments", "sensitivity"])
@pytest.mark.parametrize("methods", [(CHANNELS,), (CHANNELS, "svd")])
def test_every_objective_weighs_channels(network, objective, methods):
    result = tt.compress(network, IMAGES[:1], tt.Budget(macs=0.7), calibration=IMAGES, methods=methods,
                         objective=objective)  # fmt: skip
    assert result.plan.macs[1] <= 0.7 * result.plan.macs[0]
    assert distance(result.model, network) < 0.1


def test_a_folder_is_loaded_without_a_search(network, result, tmp_path):
    result.save(tmp_path / "net")
    loaded = tt.load(tmp_path / "net", into=network)
    assert torch.equal(loaded(IMAGES), result.model(IMAGES))


def test_what_was_pruned_can_be_compressed_further(network, result, tmp_path):
    first = tt.load(result.save(tmp_path / "first"), into=network)
    second = tt.compress(first, IMAGES[:1], tt.Budget(params=0.8), calibration=IMAGES)
    assert second.plan.parameters[0] == result.plan.parameters[1]
    loaded = tt.load(second.save(tmp_path / "second"), into=network)
    assert torch.equal(loaded(IMAGES), second.model(IMAGES))
    third = tt.compress(loaded, IMAGES[:1], tt.Budget(macs=0.9), calibration=IMAGES)
    assert torch.equal(tt.load(third.save(tmp_path / "third"), into=network)(IMAGES), third.model(IMAGES))


def test_a_plan_that_was_edited_is_applied_as_it_says(network, result):
    first, *rest = result.plan.pruned
    edited = replace(result.plan, pruned=(Pruning(first.hidden, first.kept[:3]), *rest))
    assert tt.apply(network, edited).get_submodule(first.hidden.producers[0]).out_channels == 3


@pytest.mark.parametrize("kept", [(), (3, 2), (0, 0), (-1,), (48,)])
def test_channels_that_cannot_be_are_refused(result, kept):
    data = copy.deepcopy(result.plan.to_json())
    data["pruned"][0]["kept"] = list(kept)
    with pytest.raises(tt.TuckertreeError, match=r"plan\.pruned\.0: kept"):
        tt.Plan.from_json(data)


def test_what_is_left_out_or_frozen_keeps_its_channels(network):
    frozen = copy.deepcopy(network)
    frozen[2].branch[4].weight.requires_grad_(False)
    kept = tt.compress(frozen, IMAGES[:1], tt.Budget(macs=0.8), calibration=IMAGES, methods=(CHANNELS,))
    assert [each.hidden.producers for each in kept.plan.pruned] == [("1.branch.0",)]
    with pytest.raises(tt.UnreachableTargetError):
        tt.compress(frozen, IMAGES[:1], tt.Budget(macs=0.8), calibration=IMAGES, methods=(CHANNELS,),
                    exclude="1.branch.3")  # fmt: skip


def test_without_images_there_is_nothing_to_go_by(network):
    with pytest.raises(tt.UsageError, match=r"channels .*calibration"):
        tt.compress(network, IMAGES[:1], tt.Budget(macs=0.6), methods=(CHANNELS,))


def test_an_onnx_file_loses_them_too(network, tmp_path):
    pytest.importorskip("onnxruntime")
    file = tt.export(network, tmp_path / "net.onnx", IMAGES[:1]).path
    result = tt.compress(file, rule=tt.Budget(macs=0.6), calibration=IMAGES, methods=(CHANNELS,))
    small = result.save(tmp_path / "small.onnx")
    assert result.plan.pruned
    assert result.output.error < 0.1
    found = OnnxNetwork(small).inventory()
    assert (found.parameters, found.macs) == (result.plan.parameters[1], result.plan.macs[1])


def test_tuning_goes_on_from_fewer_channels(network, result):
    with warnings.catch_warnings():  # it may gain nothing here
        warnings.simplefilter("ignore", CalibrationWarning)
        tuned = tt.tune(result, network, IMAGES, steps=3)
    assert tuned.model.get_submodule(result.plan.pruned[0].hidden.producers[0]).out_channels == len(
        result.plan.pruned[0].kept
    )


def test_channels_that_share_layers_are_chosen_together_or_apart():
    torch.manual_seed(0)
    model = nn.Sequential(
        *(
            m
            for c in ((3, 8), (8, 24), (24, 16), (16, 8), (8, 4))
            for m in (nn.Conv2d(*c, 3, padding=1), nn.ReLU())
        )
    )
    result = tt.compress(model, IMAGES[:1], tt.Budget(macs=0.4), calibration=IMAGES, methods=(CHANNELS,))
    shared = [each.hidden for each in result.plan.pruned]
    assert any({*a.consumers} & {*b.producers} for a in shared for b in shared)
    assert result.plan.macs[1] == count_macs(result.model, IMAGES[:1])


def test_groups_need_the_consumers_metrics():
    hidden = HiddenChannels(8, ("0",), (), ("1",))
    assert hidden_groups(nn.Sequential(), [], [hidden], {}, {}) == {}


class Proportional:
    """A machine on which a layer takes as long as it has work to do."""

    def seconds(self, layer, stages, ranks):
        assert stages is None
        return torch.full((len(ranks),), layer.macs * 1e-9, dtype=torch.float64)


def test_narrower_layers_are_timed_and_their_widths_suit_the_machine(network):
    inventory = take_inventory(network, IMAGES[:1])
    hidden = find_hidden(network, inventory, IMAGES[:1])
    options = Options(methods=(CHANNELS,), round_to=None)
    found, _ = survey_network(
        network, inventory, options, Outputs(), Calibration(IMAGES), hidden=hidden, timer=Proportional()
    )
    groups = [each for each in found.values() if isinstance(each, Group)]
    assert len(groups) == 2
    for group in groups:
        widths = [len(pruning.kept) for (pruning,) in group.pruned]
        assert widths
        assert all(width % 8 == 0 for width in widths)
        seconds = [sum(layer.seconds[1] for layer in plan) for plan in group.plans]
        macs = [sum(layer.macs[1] for layer in plan) for plan in group.plans]
        assert seconds[:-1] == pytest.approx([1e-9 * each for each in macs[:-1]])
        assert seconds[-1] >= 1e-9 * macs[-1] * (1 - 1e-9)  # below a quarter nothing is timed
    timed = replace(inventory, seconds=1e-9 * inventory.macs)
    plan = make_plan(timed, found, Budget(latency=0.7), options)
    assert plan.pruned
    assert sum(layer.seconds[0] - layer.seconds[1] for layer in plan.layers) >= 0.3e-9 * inventory.macs


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"producers": [""]}, "of which no channels can go"),
        ({"producers": ["1.nothing"]}, "does not have"),
        ({"between": [], "consumers": ["1.branch.3"]}, "of which no channels can go"),
        ({"between": ["1.branch.2"]}, "not for each channel apart"),
        ({"channels": 4096}, "the plan says 4096"),
        ({"producers": []}, "producers and consumers"),
        ({"channels": "many"}, "channels"),
    ],
)
def test_a_folder_whose_channels_do_not_fit_is_refused(network, result, tmp_path, change, message):
    result.save(tmp_path / "net")
    config = json.loads((tmp_path / "net" / "config.json").read_text())
    config["plan"]["pruned"][0]["hidden"].update(change)
    (tmp_path / "net" / "config.json").write_text(json.dumps(config))
    with pytest.raises(tt.TuckertreeError, match=message) as raised:
        tt.load(tmp_path / "net", into=network)
    assert "\n" not in str(raised.value)
