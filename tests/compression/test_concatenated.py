"""Channels that concatenations carry on go as others do, of many groups that share layers at once."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional

import tuckertree as tt
from tests.compression.test_hidden import Proportional
from tuckertree.calibration import Calibration
from tuckertree.compression import OnnxNetwork
from tuckertree.compression.objectives import Outputs, survey_network
from tuckertree.measure import count_macs, count_parameters
from tuckertree.network.hidden import find_hidden
from tuckertree.planning import Budget, Group, Options, make_plan, take_inventory
from tuckertree.planning.channels import CHANNELS

IMAGES = torch.randn(24, 3, 8, 8, generator=torch.Generator().manual_seed(1))
KIND = pytest.mark.parametrize("kind", ["u-net", "dense block"])


class UNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.down, self.deep = nn.Conv2d(3, 24, 3, padding=1), nn.Conv2d(24, 32, 3, padding=1)
        self.up, self.last = nn.ConvTranspose2d(32, 24, 2, 2), nn.Conv2d(48, 16, 3, padding=1)

    def forward(self, x):
        skip = self.down(x).relu()
        deep = self.deep(functional.max_pool2d(skip, 2)).relu()
        return self.last(torch.cat([self.up(deep), skip], 1))


class Dense(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 16, 3, padding=1)
        widths = (16, 28, 40)
        self.layers = nn.ModuleList(
            nn.Sequential(nn.BatchNorm2d(width), nn.ReLU(), nn.Conv2d(width, 12, 3, padding=1))
            for width in widths
        )
        self.norm, self.last = nn.BatchNorm2d(52), nn.Conv2d(52, 4, 1)

    def forward(self, x):
        x = self.first(x)
        for layer in self.layers:
            x = torch.cat([x, layer(x)], 1)
        return self.last(self.norm(x).relu())


def network_of(kind):
    torch.manual_seed(0)
    model = {"u-net": UNet, "dense block": Dense}[kind]()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.bias, 0, 0.3)
            nn.init.normal_(module.running_mean, 0, 0.1)
            nn.init.uniform_(module.running_var, 0.5, 2)
    return model.eval()


@pytest.fixture(scope="module")
def results():
    made = {}

    def result_of(kind):
        if kind not in made:
            made[kind] = tt.compress(
                network_of(kind), IMAGES[:1], tt.Budget(macs=0.5), calibration=IMAGES, methods=(CHANNELS,)
            )
        return made[kind]

    return result_of


def distance(a, b):
    with torch.no_grad():
        return float(torch.dist(a(IMAGES), b(IMAGES)) / torch.linalg.norm(b(IMAGES)))


@KIND
def test_the_plan_counts_what_is_there(results, kind):
    network, result = network_of(kind), results(kind)
    plan = result.plan
    assert any(each.hidden.parts for each in plan.pruned)
    assert plan.macs == (count_macs(network, IMAGES[:1]), count_macs(result.model, IMAGES[:1]))
    assert plan.parameters == (count_parameters(network), count_parameters(result.model))
    assert 0.4 * plan.macs[0] < plan.macs[1] <= 0.5 * plan.macs[0]
    assert tt.Plan.loads(plan.dumps()) == plan


@KIND
def test_what_is_left_makes_up_for_what_went(results, kind):
    network, result = network_of(kind), results(kind)
    plain = tt.apply(network, result.plan)
    assert distance(result.model, network) < 0.8 * distance(plain, network)


@KIND
def test_folders_are_loaded_stage_by_stage(kind, tmp_path):
    network = network_of(kind)
    result = tt.compress(network, IMAGES[:1], tt.Budget(macs=0.85), calibration=IMAGES, methods=(CHANNELS,))
    first = tt.load(result.save(tmp_path / "first"), into=network)
    assert torch.equal(first(IMAGES), result.model(IMAGES))
    second = tt.compress(first, IMAGES[:1], tt.Budget(macs=0.85), calibration=IMAGES, methods=(CHANNELS,))
    assert second.plan.before == (result.plan.pruned,)
    assert second.plan.pruned
    loaded = tt.load(second.save(tmp_path / "second"), into=network)
    assert torch.equal(loaded(IMAGES), second.model(IMAGES))


@KIND
def test_a_plan_is_carried_out_again(results, kind):
    network, result = network_of(kind), results(kind)
    again = tt.compress(network, IMAGES[:1], result.plan, calibration=IMAGES)
    assert again.plan.pruned == result.plan.pruned
    assert again.plan.macs == result.plan.macs


@KIND
def test_files_of_onnx_keep_what_is_left(results, kind, tmp_path):
    pytest.importorskip("onnxruntime")
    result = results(kind)
    small = tt.export(result.model, tmp_path / "small.onnx", IMAGES[:1]).path  # compared with the model
    assert OnnxNetwork(small).inventory().macs == result.plan.macs[1]
    file = tt.export(network_of(kind), tmp_path / "net.onnx", IMAGES[:1]).path
    found = tt.compress(file, rule=tt.Budget(macs=0.5), calibration=IMAGES, methods=(CHANNELS,))
    assert any(each.hidden.parts for each in found.plan.pruned)
    written = OnnxNetwork(found.save(tmp_path / "fewer.onnx")).inventory()
    assert (written.parameters, written.macs) == (found.plan.parameters[1], found.plan.macs[1])


def test_what_is_left_out_or_frozen_keeps_its_channels():
    network = network_of("dense block")
    network.layers[1][0].weight.requires_grad_(False)
    result = tt.compress(network, IMAGES[:1], tt.Budget(macs=0.8), calibration=IMAGES, methods=(CHANNELS,))
    gone = {name for each in result.plan.pruned for name in each.hidden.producers}
    assert gone <= {"layers.1.2", "layers.2.2"}
    before, after = network.layers[1][0], result.model.layers[1][0]
    assert torch.equal(before.running_mean, after.running_mean)
    with pytest.raises(tt.UnreachableTargetError):
        tt.compress(
            network, IMAGES[:1], tt.Budget(macs=0.8), calibration=IMAGES, methods=(CHANNELS,), exclude="last"
        )


@KIND
def test_low_rank_stands_beside_fewer_channels_in_one_choice(kind):
    network = network_of(kind)
    rule = tt.Budget(macs=0.5)
    both = tt.compress(network, IMAGES[:1], rule, calibration=IMAGES)
    alone = tt.compress(
        network, IMAGES[:1], rule, calibration=IMAGES, methods=("ht2", "tucker2", "spatial", "svd")
    )
    assert both.plan.optimality.lower_bound <= alone.plan.optimality.loss
    for layer in both.plan.compressed:  # no channel goes from a layer of low rank
        assert not any(each.hidden.side(layer.name) for each in both.plan.pruned)


def test_groups_that_share_layers_are_timed_once_for_each_side():
    network = network_of("dense block")
    inventory = take_inventory(network, IMAGES[:1])
    hidden = find_hidden(network, inventory, IMAGES[:1])
    options = Options(methods=(CHANNELS,), round_to=1)
    found, _ = survey_network(
        network, inventory, options, Outputs(), Calibration(IMAGES), hidden=hidden, timer=Proportional()
    )
    groups = [each for each in found.values() if isinstance(each, Group)]
    assert all(group.joint for group in groups)
    for group in groups:
        for plan in group.plans:
            for layer in plan:
                low = min(layer.macs[1] / layer.macs[0], 1)
                assert low <= layer.seconds[1] / layer.seconds[0] + 0.01
    plan = make_plan(replace(inventory, seconds=1e-9 * inventory.macs), found, Budget(latency=0.7), options)
    assert plan.pruned
    assert sum(layer.seconds[0] - layer.seconds[1] for layer in plan.layers) >= 0.3e-9 * inventory.macs
