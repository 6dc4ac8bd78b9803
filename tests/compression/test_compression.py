"""compress(), and the promise that the model given to it is not touched."""

import copy
from types import MethodType

import pytest
import torch
from torch import nn

import tuckertree as tt
from tests import networks
from tests.strategies import CUT_METHODS
from tuckertree.calibration import KroneckerMetric
from tuckertree.compression import Objective
from tuckertree.compression.objectives import OBJECTIVES
from tuckertree.core.layers import Chain, densify
from tuckertree.measure import count_macs, count_parameters
from tuckertree.network.surgery import build_structure
from tuckertree.planning.channels import DEFAULT_METHODS
from tuckertree.tools.data import open_images
from tuckertree.tools.models import resolve

IMAGE = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def test_the_result_is_what_the_plan_says():
    result = tt.compress(networks.small_cnn(), IMAGE, energy=0.5)
    chains = {name for name, module in result.model.named_modules() if isinstance(module, Chain)}
    assert chains == {layer.name for layer in result.plan.compressed} == set(result.errors)
    assert count_parameters(result.model) == result.plan.parameters[1] < result.plan.parameters[0]
    assert count_macs(result.model, IMAGE) == result.plan.macs[1] < result.plan.macs[0]
    assert result.model(IMAGE).shape == (2, 10)


def test_the_true_error_is_within_its_bound_and_within_the_papers():
    result = tt.compress(networks.small_cnn(), IMAGE, energy=0.6)
    for layer in result.plan.compressed:
        assert result.errors[layer.name] <= layer.bound + 1e-6
        assert layer.bound**2 <= len(layer.ranks) * (1 - 0.6)
    assert 0 < result.relative_error < 1


def test_the_given_model_is_not_touched_and_shares_no_memory_with_the_result():
    model = networks.small_cnn().train()
    before = copy.deepcopy(model.state_dict())
    result = tt.compress(model, IMAGE, energy=0.5)
    assert model.training
    assert result.model.training
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    own = {tensor.data_ptr() for tensor in model.state_dict().values()}
    assert own.isdisjoint(tensor.data_ptr() for tensor in result.model.state_dict().values())


def test_apply_reproduces_the_model_from_the_plan_alone():
    model = networks.small_cnn()
    result = tt.compress(model, IMAGE, energy=0.5)
    again = tt.apply(model, tt.Plan.loads(result.plan.dumps()))
    expected = result.model.state_dict()
    assert again.state_dict().keys() == expected.keys()
    # The basis of a single-cut layer may be taken from either side's spectra: the function is the same.
    torch.testing.assert_close(again(IMAGE), result.model(IMAGE))


def test_structure_has_the_names_and_shapes_of_the_result():
    model = networks.small_cnn()
    result = tt.compress(model, IMAGE, energy=0.5)
    structure = build_structure(model, result.plan).state_dict()
    assert {k: v.shape for k, v in structure.items()} == {
        k: v.shape for k, v in result.model.state_dict().items()
    }


def test_a_shared_module_becomes_one_shared_chain():
    result = tt.compress(networks.SharedModule(), IMAGE, energy=0.5)
    assert isinstance(result.model.a, Chain)
    assert result.model.a is result.model.b


def test_a_model_that_is_one_layer():
    result = tt.compress(nn.Conv2d(16, 16, 3), torch.randn(1, 16, 8, 8), energy=0.5, first="ht2")
    assert isinstance(result.model, Chain)


def test_refused_layers_stay_what_they_are_and_the_rest_is_compressed():
    model = nn.Sequential(
        networks.hooked(), nn.Conv2d(16, 32, 3), networks.StandardizedConv2d(32, 32, 3)
    ).eval()
    x = torch.randn(1, 3, 16, 16)
    result = tt.compress(model, x, energy=0.4)
    assert [layer.name for layer in result.plan.compressed] == ["1"]
    expected = copy.deepcopy(model)
    expected[1] = tt.densify(result.model[1])
    torch.testing.assert_close(result.model(x), expected(x))


def test_old_weight_norm_models_can_be_copied():
    with pytest.warns(FutureWarning, match="weight_norm"):
        normed = torch.nn.utils.weight_norm(nn.Conv2d(3, 16, 3))
    model = nn.Sequential(normed, nn.Conv2d(16, 32, 3))
    model(IMAGE)  # leaves a weight with a graph in the layer
    result = tt.compress(model, IMAGE, energy=0.3)
    assert [layer.name for layer in result.plan.compressed] == ["1"]
    assert result.model(IMAGE).shape == model(IMAGE).shape


def test_half_precision_models_stay_in_half_precision():
    model = networks.small_cnn().to(torch.bfloat16)
    result = tt.compress(model, IMAGE.to(torch.bfloat16), energy=0.6)
    assert {p.dtype for p in result.model.parameters()} == {torch.bfloat16}
    # The error is that of the weights as stored, so it may exceed the bound by their rounding.
    assert all(result.errors[layer.name] <= layer.bound + 0.02 for layer in result.plan.compressed)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused_by_name(value):
    model = networks.small_cnn()
    with torch.no_grad():
        model[2].weight[0, 0, 0, 0] = value
    with pytest.raises(tt.TuckertreeError, match=r"^2: the kernel holds NaN or infinite values$"):
        tt.compress(model, IMAGE, energy=0.5)


def test_a_rule_is_needed_and_only_one():
    with pytest.raises(tt.UsageError, match="either a rule or an energy"):
        tt.compress(networks.small_cnn(), IMAGE)
    with pytest.raises(tt.UsageError, match="either a rule or an energy"):
        tt.compress(networks.small_cnn(), IMAGE, tt.ErrorBound(0.1), energy=0.5)


def test_nothing_to_compress_says_why():
    with pytest.raises(tt.UnreachableTargetError, match="no torch convolution or linear layer"):
        tt.compress(nn.ReLU(), IMAGE, energy=0.5)
    with pytest.raises(
        tt.UnreachableTargetError, match=r"all 5 layers stay dense \(.*would not save parameters"
    ):
        tt.compress(networks.small_cnn(), IMAGE, energy=1)


def test_a_plan_of_another_model_is_refused():
    plan = tt.compress(networks.small_cnn(), IMAGE, energy=0.5).plan
    other = networks.small_cnn()
    other[2] = nn.Conv2d(16, 25, 3)
    with pytest.raises(
        tt.TuckertreeError, match=r"^2 is conv2d \[25, 16, 3, 3\] .* the plan says conv2d \[24, 16, 3, 3\]"
    ):
        tt.apply(other, plan)
    with pytest.raises(tt.TuckertreeError, match="a layer '0' that this model does not have"):
        tt.apply(nn.ModuleDict({"a": other}), plan)


def test_the_table_names_every_layer_its_ranks_and_the_totals():
    result = tt.compress(networks.small_cnn(), IMAGE, energy=0.5)
    text = str(result)
    for layer in result.plan.layers:
        assert layer.reason in text
        assert "/".join(map(str, layer.ranks)) in text
    assert f"({result.plan.parameters[0] / result.plan.parameters[1]:.2f}x)" in text


def test_the_reduction_of_a_trained_resnet20_by_energy(real_data):
    model = tt.build("cifar10:resnet20", weights=real_data / "models/cifar10_resnet20.safetensors")
    image = torch.zeros(1, 3, 32, 32)
    for energy, reduction in {0.9: 1.53, 0.8: 2.57, 0.7: 3.94, 0.6: 5.86, 0.5: 8.63}.items():
        before, after = tt.compress(model, image, energy=energy).plan.parameters
        assert before / after == pytest.approx(reduction, rel=0.01)


@pytest.mark.parametrize(
    ("objective", "methods", "gap"),
    [
        *((objective, (*CUT_METHODS, "channels"), 0.05) for objective in OBJECTIVES),
        ("outputs", DEFAULT_METHODS, 0.08),  # ranks of depthwise are few
    ],
)
def test_a_budget_is_kept_and_images_make_the_outputs_nearer(objective, methods, gap):
    model = tt.build("demo")
    images = open_images("demo", resolve("demo").preprocessing, split="train", limit=96)
    unseen = torch.stack([images[i][0] for i in range(64, 96)])
    seen = torch.stack([images[i][0] for i in range(64)])
    budget = tt.Budget(params=0.6, macs="1.3x")
    plain = tt.compress(model, seen[:1], budget, methods=methods)
    fitted = tt.compress(model, seen[:1], budget, methods=methods, calibration=seen, objective=objective)
    for result in (plain, fitted):
        before, after = result.plan.parameters
        assert count_parameters(result.model) == after <= 0.6 * before
        before, after = result.plan.macs
        assert count_macs(result.model, seen[:1]) == after <= before / 1.3
        assert result.plan.optimality.gap < gap
    with torch.no_grad():
        wanted = model(unseen)
        assert (fitted.model(unseen) - wanted).norm() < (plain.model(unseen) - wanted).norm()


def test_sensitivity_is_measured_on_whatever_batches_the_model_takes():
    class Scaled(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.net = networks.small_cnn()

        def forward(self, image, scale):
            return self.net(image * scale)

    images, scales = torch.randn(48, 3, 16, 16), torch.rand(48, 1, 1, 1)
    pairs = list(zip(images.split(10), scales.split(10), strict=True))
    mappings = [{"image": image, "scale": scale} for image, scale in pairs]
    example, budget = (images[:1], scales[:1]), tt.Budget(params=0.6)
    one, other = (
        tt.compress(Scaled(), example, budget, calibration=batches, objective="sensitivity")
        for batches in (pairs, mappings)
    )
    assert one.plan.changes
    assert one.plan == other.plan


def test_objectives_that_cannot_be_are_refused():
    model, budget = networks.small_cnn(), tt.Budget(macs=0.5)
    with pytest.raises(tt.UsageError, match="unknown objective 'luck'"):
        tt.compress(model, IMAGE, budget, objective="luck")
    with pytest.raises(tt.UsageError, match="objective 'moments' needs calibration images"):
        tt.compress(model, IMAGE, budget, objective="moments")
    with pytest.raises(tt.UsageError, match="an objective belongs to a budget"):
        tt.compress(model, IMAGE, energy=0.5, objective="weight")


def test_a_batch_norm_network_is_calibrated_without_touching_the_original():
    model = tt.build("demo")
    before = copy.deepcopy(model.state_dict())
    images = torch.randn(80, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    tt.compress(model, images[:1], energy=0.8, calibration=images)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_compressed_network_is_multiplied_out_and_compressed_anew():
    model = networks.small_cnn()
    once = tt.compress(model, IMAGE, tt.Budget(params=0.7)).model
    again = tt.compress(once, IMAGE, tt.Budget(params=0.4))
    same = tt.compress(tt.to_dense(once), IMAGE, tt.Budget(params=0.4))
    assert again.plan == same.plan
    assert again.plan.parameters[0] == count_parameters(model)
    assert again.plan.parameters[1] <= 0.4 * again.plan.parameters[0]
    assert any(isinstance(module, Chain) for module in once.modules())  # what was given is as it was


class Reader(nn.Module):
    """Uses its layer, and reads something off it too."""

    def __init__(self, read):
        super().__init__()
        self.layer, self.read = nn.Conv2d(8, 8, 3), read

    def forward(self, x):
        return self.layer(x) * self.read(self.layer)


def test_a_model_that_reads_its_layers_weight_still_runs():
    model, x = Reader(lambda layer: layer.weight.abs().max()), torch.randn(1, 8, 6, 6)
    compressed = tt.compress(model, x, energy=0.5).model
    expected = densify(compressed.layer)(x) * compressed.layer.weight.abs().max()
    torch.testing.assert_close(compressed(x), expected)
    encoder, x = nn.TransformerEncoderLayer(16, 2, 64, batch_first=True).eval(), torch.randn(1, 4, 16)
    compressed = tt.compress(encoder, x, tt.Ranks({"linear1": 4})).model.eval()
    encoder.linear1 = densify(compressed.linear1)
    with torch.no_grad():
        torch.testing.assert_close(compressed(x), encoder(x), rtol=1e-4, atol=1e-4)


def test_a_layer_of_which_a_model_reads_what_a_chain_has_not_stays_dense():
    model = nn.Sequential(Reader(lambda layer: layer.transposed + 1), nn.Conv2d(8, 8, 3))
    plan = tt.compress(model, torch.randn(1, 8, 9, 9), energy=0.5).plan
    assert [layer.name for layer in plan.compressed] == ["1"]
    assert "'Chain' object has no attribute 'transposed'" in plan.layers[0].reason


def test_a_forward_put_on_one_layer_alone_is_kept():
    model, x = nn.Sequential(nn.Conv2d(8, 8, 3), nn.Conv2d(8, 8, 3)), torch.randn(1, 8, 9, 9)
    model[0].forward = MethodType(lambda layer, x: 100 * nn.Conv2d.forward(layer, x), model[0])
    result = tt.compress(model, x, tt.Ranks({"1": 4}))
    rebuilt = nn.Sequential(model[0], densify(result.model[1]))
    assert "changes the forward" in result.plan.layers[0].reason
    torch.testing.assert_close(result.model(x), rebuilt(x), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("calibration", [None, IMAGE])
def test_a_network_of_which_no_layer_can_be_a_chain_is_refused_with_the_reason(calibration):
    layers = [nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 3)]
    model = nn.Sequential(*map(nn.utils.parametrizations.weight_norm, layers))
    with pytest.raises(tt.UnreachableTargetError, match=r"all 2 layers stay dense \(parametrized"):
        tt.compress(model, IMAGE, tt.Budget(macs=0.5), calibration=calibration)


class Work(Objective):
    """Weight errors, each as bad as the layer is large."""

    needs_images = False

    def losses(self, survey, candidates, metrics):
        macs = {layer.name: layer.macs for layer in survey.layers}
        return {name: found.weighted(macs[name]) for name, found in candidates.items()}


def test_an_objective_of_ones_own_is_made_small():
    model, budget = networks.small_cnn(), tt.Budget(params=0.5)
    usual = tt.compress(model, IMAGE, budget)
    own = tt.compress(model, IMAGE, budget, objective=Work())
    assert own.plan.rule["objective"] == "work"
    assert not own.plan.rule["weighs"]
    macs = {layer.name: layer.macs[0] for layer in own.plan.layers}

    def loss(result):
        return sum(macs[name] * error**2 for name, error in result.errors.items())

    assert loss(own) < loss(usual)
    assert own.plan.parameters[1] <= 0.5 * own.plan.parameters[0]


def test_an_objective_in_a_metric_of_its_own_is_not_taken_for_the_weights():
    class Scaled(Objective):
        needs_images = False

        def metrics(self, survey):
            twice = torch.full((1, 1, 1), 2.0, dtype=torch.float64)
            return {layer.name: KroneckerMetric((twice, None)) for layer in survey.layers}

    model, budget = networks.small_cnn(), tt.Budget(params=0.5)
    own, usual = (tt.compress(model, IMAGE, budget, objective=each) for each in (Scaled(), "weight"))
    assert own.plan.rule["weighs"]
    assert "metric of the objective (scaled)" in str(own)
    assert [layer.ranks for layer in own.plan.layers] == [layer.ranks for layer in usual.plan.layers]
    for (
        name,
        weight,
    ) in own.model.state_dict().items():  # factors of the weights, not of what they are in the metric
        torch.testing.assert_close(weight, usual.model.state_dict()[name])


def test_an_objective_that_breaks_its_contract_is_refused_by_the_clause():
    class Forgets(Objective):
        needs_images = False

        def losses(self, survey, candidates, metrics):
            return dict(list(candidates.items())[1:])

    class Falls(Forgets):
        def losses(self, survey, candidates, metrics):
            return {name: found.measured(lambda error: -error) for name, found in candidates.items()}

    class Needs(Objective):
        pass

    model, budget = networks.small_cnn(), tt.Budget(params=0.5)
    for objective, message in (
        (Forgets(), "objective forgets gives no losses for 0"),
        (Falls(), "loss"),
        (Needs(), "objective 'needs' needs calibration images"),
    ):
        with pytest.raises(tt.UsageError, match=message):
            tt.compress(model, IMAGE, budget, objective=objective)
