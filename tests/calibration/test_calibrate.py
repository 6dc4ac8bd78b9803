import copy
import threading

import pytest
import torch
from torch import nn

import tuckertree as tt
from tests import networks
from tests.calibration.cases import generator
from tuckertree.calibration import (
    Calibration,
    calibrate,
    output_distances,
    parts,
    reestimate,
    reestimate_if_better,
)
from tuckertree.calibration.batchnorm import held_out
from tuckertree.calibration.distances import Comparison
from tuckertree.calibration.metrics import collect_metrics
from tuckertree.calibration.suspended import can_suspend
from tuckertree.planning import take_inventory

IMAGES = torch.randn(96, 3, 12, 12, generator=generator()).cumsum(2).cumsum(3) / 5


def with_norms() -> nn.Sequential:
    torch.manual_seed(0)
    layers = []
    for inputs, outputs in ((3, 12), (12, 16), (16, 16)):
        layers += [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10)).eval()
    return reestimate(model, IMAGES)


def distance(model, compressed) -> float:
    return output_distances(model, (compressed,), IMAGES)[0]


def compared(model, images=IMAGES) -> Comparison:
    return Comparison(model, images, cut=held_out(len(images)))


@pytest.mark.parametrize("build", [with_norms, networks.small_cnn])
def test_each_step_brings_the_outputs_nearer_to_the_original(build):
    model = build()
    plain = tt.compress(model, IMAGES[:1], energy=0.6)
    fitted = calibrate(model, plain.plan, IMAGES, correction=False, means=False, batch_norm=False)
    means = calibrate(model, plain.plan, IMAGES, correction=False, batch_norm=False)
    corrected = calibrate(model, plain.plan, IMAGES, batch_norm=False)
    assert distance(model, fitted) < distance(model, plain.model)
    assert distance(model, means) < distance(model, plain.model)
    assert distance(model, corrected) < distance(model, fitted)
    assert {k: v.shape for k, v in corrected.state_dict().items()} == {
        k: v.shape for k, v in plain.model.state_dict().items()
    }
    assert corrected(IMAGES[:2]).isfinite().all()


def test_the_given_model_is_not_touched_and_the_result_is_the_same_every_time():
    model = with_norms()
    before = copy.deepcopy(model.state_dict())
    plan = tt.compress(model, IMAGES[:1], energy=0.6).plan
    results = [calibrate(model, plan, IMAGES) for _ in range(2)]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any("forward" in vars(module) or module._forward_hooks for module in results[0].modules())
    torch.testing.assert_close(results[0](IMAGES[:4]), results[1](IMAGES[:4]))


def test_full_ranks_change_nothing():
    model = networks.small_cnn()
    plan = tt.compress(model, IMAGES[:1], energy=0.6).plan
    layers = [tt.LayerPlan(**{**vars(layer), "ranks": (10**6,) * len(layer.ranks)}) for layer in plan.layers]
    full = tt.Plan(tuple(layers), plan.rule, plan.parameters, plan.macs)
    result = calibrate(model, full, IMAGES)
    torch.testing.assert_close(result(IMAGES), model(IMAGES), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("build", [networks.UNet, networks.SharedModule])
@pytest.mark.filterwarnings("ignore:fewer calibration patches")
def test_transposed_layers_shared_modules_and_several_layers_a_pass(build):
    """With the activations of no image allowed, there is more than one pass over the images."""
    torch.manual_seed(0)
    model = build().eval()
    plan = tt.compress(model, IMAGES[:1], energy=0.5).plan
    plain, corrected = tt.apply(model, plan), calibrate(model, plan, IMAGES, layers_per_pass=3)
    assert distance(model, corrected) < distance(model, plain)


@pytest.mark.parametrize("kept", [1, 3 * 4 * 16 * 12 * 12])
def test_it_is_nothing_to_the_result_how_many_images_run_at_once(kept, monkeypatch):
    model = with_norms()
    plan = tt.compress(model, IMAGES[:1], energy=0.6).plan
    layers = take_inventory(model, IMAGES[:1]).layers
    whole, metrics = calibrate(model, plan, IMAGES), collect_metrics(model, layers, IMAGES)
    monkeypatch.setattr(parts, "_KEPT", kept)
    divided, sizes = calibrate(model, plan, IMAGES), set()
    model.register_forward_pre_hook(lambda _, args: sizes.add(len(args[0])))
    others = collect_metrics(model, layers, IMAGES)
    assert max(sizes) <= 3
    torch.testing.assert_close(divided(IMAGES), whole(IMAGES), rtol=1e-3, atol=1e-3)
    for name, metric in metrics.items():
        torch.testing.assert_close(others[name].roots, metric.roots, rtol=1e-3, atol=1e-6)


class Mixing(nn.Module):
    """Gives for each image what is seen in all of a batch."""

    def forward(self, x):
        return x - x.mean(0)


@pytest.mark.parametrize("first", [nn.Identity, Mixing])
def test_only_images_that_stand_for_themselves_run_apart(first, monkeypatch):
    model = nn.Sequential(first(), with_norms()).eval()
    monkeypatch.setattr(parts, "_KEPT", 4 * 16 * 12 * 12)
    layers, images = take_inventory(model, IMAGES[:2]).layers, Calibration(IMAGES)
    assert parts.images_at_once(model, layers, images) == (1 if first is nn.Identity else None)


def test_what_is_compared_runs_once():
    model, runs = with_norms(), []
    model.register_forward_hook(lambda *_: runs.append(1))
    other = tt.apply(model, tt.compress(model, IMAGES[:1], energy=0.6).plan)
    runs.clear()
    comparison = Comparison(model, IMAGES, cut=64)
    late = comparison.distances((other,), start=64)
    assert (len(runs), late) == (2, output_distances(model, (other,), IMAGES[64:]))
    runs.clear()
    assert comparison.distances((other,)) == pytest.approx(output_distances(model, (other,), IMAGES))
    assert len(runs) == 2 + 4


def test_norms_are_re_estimated_only_where_that_helps():
    model = with_norms()
    off = copy.deepcopy(model)
    off[1].running_mean += 3
    better = reestimate_if_better(off, compared(model))
    assert distance(model, better) < distance(model, off)
    assert reestimate_if_better(model, compared(model)) is model
    without = networks.small_cnn()
    assert reestimate_if_better(without, compared(without)) is without
    assert [m.momentum for m in better.modules() if isinstance(m, nn.BatchNorm2d)] == [0.1] * 3
    assert not any(m.training for m in better.modules())


def test_re_estimated_statistics_are_those_of_the_images():
    model = nn.Sequential(nn.BatchNorm2d(3)).eval()
    norm = reestimate(model, IMAGES)[0]
    torch.testing.assert_close(norm.running_mean, IMAGES.mean((0, 2, 3)), rtol=0.2, atol=0.2)
    assert model[0].num_batches_tracked == 0
    assert norm.num_batches_tracked == 2


@pytest.mark.parametrize("sizes", [(64, 1), (64, 31), (31, 64), (1, 64)])
def test_batches_much_smaller_than_the_largest_do_not_count_in_the_statistics(sizes):
    model = nn.Sequential(nn.BatchNorm2d(3)).eval()
    small, large = IMAGES[64 : 64 + min(sizes)], IMAGES[:64]
    images = [large, small] if sizes[0] == 64 else [small, large]
    norm, expected = reestimate(model, images)[0], reestimate(model, large)[0]
    assert torch.equal(norm.running_mean, expected.running_mean)
    assert torch.equal(norm.running_var, expected.running_var)


def with_a_norm_of_single_values() -> nn.Sequential:
    torch.manual_seed(0)
    pooled = nn.AdaptiveAvgPool2d(1), nn.BatchNorm2d(16), nn.Flatten(), nn.Linear(16, 10)
    return nn.Sequential(nn.Conv2d(3, 16, 3), *pooled).eval()


def test_norms_of_single_values_are_estimated_from_the_batches_that_have_several():
    model = with_a_norm_of_single_values()
    assert reestimate(model, IMAGES[:65])[2].num_batches_tracked == 1
    images = list(IMAGES[:8, None])
    assert reestimate_if_better(model, compared(model, images)) is model
    with pytest.raises(tt.TuckertreeError, match="more than 1 value per channel"):
        reestimate(model, images)


@pytest.mark.parametrize("images", [list(IMAGES[:8, None]), IMAGES[:87]])
@pytest.mark.filterwarnings("ignore:fewer calibration patches")
def test_a_network_with_norms_of_single_values_is_calibrated(images):
    model = with_a_norm_of_single_values()
    plan = tt.compress(model, IMAGES[:1], energy=0.6).plan
    assert calibrate(model, plan, images)(IMAGES).isfinite().all()


@pytest.mark.parametrize("build", [networks.UNet, with_norms])
@pytest.mark.filterwarnings("ignore:fewer calibration patches")
def test_suspended_forwards_give_what_a_pass_for_each_layer_gives(build):
    torch.manual_seed(0)
    model = build().eval()
    plan = tt.compress(model, IMAGES[:1], energy=0.5).plan
    one, many = (calibrate(model, plan, IMAGES, activations=limit) for limit in (2**30, 0))
    torch.testing.assert_close(one(IMAGES), many(IMAGES), rtol=1e-3, atol=1e-4)


class KeepsSkip(nn.Module):
    """Reads an activation, or its mean, from itself that an earlier layer left there."""

    def __init__(self, mean: bool) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 16, 3), nn.Conv2d(16, 16, 3, padding=1)
        self.c, self.mean = nn.Conv2d(16, 16, 3), mean

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        skip = self.a(x).relu()
        self.skip = skip.mean() if self.mean else skip
        return self.c(self.b(skip).relu() + self.skip)


@pytest.mark.parametrize("mean", [True, False])
@pytest.mark.parametrize("images", [IMAGES, IMAGES[:48].repeat(2, 1, 1, 1), list(IMAGES[:24, None])])
@pytest.mark.filterwarnings("ignore:fewer calibration patches")
def test_a_network_that_keeps_an_activation_for_later_is_not_suspended(images, mean):
    torch.manual_seed(0)
    model = KeepsSkip(mean).eval()
    plan = tt.compress(model, IMAGES[:1], energy=0.5).plan
    one, many = (calibrate(model, plan, images, activations=limit) for limit in (2**30, 0))
    assert torch.equal(one(IMAGES), many(IMAGES))


@pytest.mark.parametrize("build", [networks.UNet, with_norms, networks.small_cnn])
@pytest.mark.parametrize("sizes", [(64, 32), (64,), (2, 2), (1, 1), (1, 64), (1,)])
def test_networks_that_keep_nothing_are_suspended(build, sizes):
    model = build().eval()
    layers = take_inventory(model, IMAGES[:1]).layers
    threads = threading.active_count()
    assert can_suspend(model, layers, [IMAGES[:size] for size in sizes])
    assert threading.active_count() == threads
    assert not any(module._forward_hooks for module in model.modules())


class TwoWays(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 16, 3), nn.Conv2d(16, 32, 3, padding=1)
        self.c = nn.Conv2d(16, 32, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.a(x)
        return self.b(x) + self.c(x) if x.mean() > -100 else self.c(x) + self.b(x)


@pytest.mark.filterwarnings("ignore:fewer calibration patches")
def test_a_network_that_takes_several_ways_is_calibrated_and_no_thread_stays_behind():
    model = TwoWays().eval()
    plan = tt.compress(model, IMAGES[:1], energy=0.3).plan
    threads = threading.active_count()
    images = [IMAGES, IMAGES - 1e4 * model.a.weight.mean((0, 2, 3)).sign().view(1, 3, 1, 1)]
    networks = tt.apply(model, plan), calibrate(model, plan, images)
    before, after = output_distances(model, networks, images)
    assert after < before
    with pytest.raises(tt.TuckertreeError, match="NaN"):
        calibrate(model, plan, IMAGES * float("nan"))
    assert threading.active_count() == threads
