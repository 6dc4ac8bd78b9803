"""The metric of a budget with images: what the network's output sees of a layer's error."""

import pytest
import torch
from torch import nn

from tuckertree._base.errors import TuckertreeError
from tuckertree.calibration import collect_metrics, metrics
from tuckertree.calibration.moment import shrinkage
from tuckertree.calibration.sensitivity import whitened_chain
from tuckertree.planning import take_inventory

IMAGES = torch.randn(48, 6, 5, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def layers_of(model):
    return take_inventory(model, IMAGES[:1]).layers


@pytest.mark.parametrize("groups", [1, 2])
def test_the_root_of_the_inputs_is_that_of_their_shrunk_channel_moment(groups):
    model = nn.Sequential(nn.Conv2d(6, 4, 3, groups=groups)).double()
    (found,) = collect_metrics(model, layers_of(model), IMAGES, gradients=False).values()
    columns = IMAGES.movedim(1, 0).reshape(groups, 6 // groups, -1)
    expected = columns @ columns.mT / columns.shape[-1]
    assert found.roots[0] is None
    share = shrinkage(expected, len(IMAGES))[:, None, None]
    level = expected.diagonal(dim1=1, dim2=2).mean(1)[:, None, None]
    expected = (1 - share) * expected + share * level * torch.eye(6 // groups)
    torch.testing.assert_close(found.roots[1].mT @ found.roots[1], expected)


@pytest.mark.parametrize("size", [1, 4])
def test_of_a_linear_network_the_metric_is_exact_and_errors_of_positions_add_up(size):
    # y = B mean(A x): the error D of A changes y by B D mean(x).
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(6, 8, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3)).double()
    x = 1 + torch.randn(8000, 6, size, size, dtype=torch.float64)
    layers = take_inventory(model, x[:1]).layers
    metric = collect_metrics(model, layers, x, count=len(x))["0"]
    error = torch.randn(8, 6, 1, 1, dtype=torch.float64)
    seen = metric.of(layers[0].spec.kernel(error)).square().sum()
    change = x.mean((2, 3)) @ error.flatten(1).T @ model[3].weight.detach().T
    # Logits that rise together are not seen; random directions stand for the average over all.
    change = (change - change.mean(1, keepdim=True)).square().sum(1).mean()
    assert float(seen) == pytest.approx(float(change), rel=0.1)


def test_directions_that_few_images_do_not_have_are_not_free():
    torch.manual_seed(0)
    model, x = nn.Linear(64, 100).double(), torch.randn(16, 64, dtype=torch.float64)
    metric = collect_metrics(model, take_inventory(model, x[:1]).layers, x)[""]
    unseen = torch.linalg.svd(x)[2][16:]
    error = torch.randn(100, 1, dtype=torch.float64) * unseen[:1]
    seen = torch.randn(100, 1, dtype=torch.float64) * x[:1] / x[0].norm()
    lost = [float(metric.of(each[None]).square().sum()) for each in (error, seen)]
    assert lost[0] > 0.1 * lost[1]


@pytest.mark.parametrize("wide", [11, 20])
@pytest.mark.parametrize("gradients", [True, False])
def test_of_a_wide_mode_the_mean_level_is_taken(monkeypatch, gradients, wide):
    torch.manual_seed(0)
    model, x = nn.Linear(40, 12).double(), torch.randn(64, 40, dtype=torch.float64)
    layers = take_inventory(model, x[:1]).layers
    full = collect_metrics(model, layers, x, gradients=gradients)[""]
    monkeypatch.setattr(metrics, "_WIDE", wide)
    found = collect_metrics(model, layers, x, gradients=gradients)[""]
    assert found.roots[1].shape == (1, 1, 1)
    for root, whole in zip(found.roots, full.roots, strict=True):
        if root is not None:
            levels = [(each.mT @ each).diagonal(dim1=1, dim2=2).mean() for each in (root, whole)]
            torch.testing.assert_close(*levels, rtol=1e-4, atol=0)


def test_a_layer_decomposed_in_the_metric_of_a_wide_mode_is_itself(monkeypatch):
    monkeypatch.setattr(metrics, "_WIDE", 5)
    model = nn.Sequential(nn.Conv2d(6, 4, 3)).double()
    (layer,) = layers_of(model)
    metric = collect_metrics(model, [layer], IMAGES, gradients=False)["0"]
    chain = whitened_chain(model, layer, "ht2", (100, 100, 100), metric)
    torch.testing.assert_close(chain(IMAGES), model(IMAGES))


def test_the_given_model_keeps_no_gradient_and_no_hook():
    model = nn.Sequential(nn.Conv2d(6, 4, 3), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(36, 3)).double()
    collect_metrics(model, layers_of(model), IMAGES)
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())
    assert model.training


def test_activations_that_are_not_finite_are_refused_by_name():
    model = nn.Sequential(nn.Conv2d(6, 4, 3)).double()
    with pytest.raises(TuckertreeError, match="0: the calibration images give NaN or infinite activations"):
        collect_metrics(model, layers_of(model), IMAGES.log(), gradients=False)


class FrozenBackbone(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(6, 8, 3), nn.Conv2d(8, 4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            x = self.a(x)
        return self.b(x)


class ChangedInPlace(FrozenBackbone):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.b(self.a(x)).sigmoid()
        y += 1
        return y


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (FrozenBackbone, "^a: no derivative of the outputs reaches this layer"),
        (
            ChangedInPlace,
            "^the model's outputs cannot be differentiated: .* modified by an inplace operation",
        ),
    ],
)
def test_networks_that_cannot_be_derived_are_refused_in_one_line_with_advice(build, message):
    model = build().double()
    with pytest.raises(TuckertreeError, match=message + ".*use the objective moments$") as caught:
        collect_metrics(model, layers_of(model), IMAGES)
    assert "\n" not in str(caught.value)
    assert set(collect_metrics(model, layers_of(model), IMAGES, gradients=False)) == {"a", "b"}


@pytest.mark.parametrize("wide", [4, 100])
def test_inputs_in_float16_do_not_overflow(monkeypatch, wide):
    monkeypatch.setattr(metrics, "_WIDE", wide)
    x = 30 * torch.randn(64, 6, 5, 5, generator=torch.Generator().manual_seed(0)).half()
    model = nn.Sequential(nn.Conv2d(6, 4, 1))
    (layer,) = take_inventory(model, x[:1].float()).layers
    found = [
        collect_metrics(each, [layer], x, gradients=False)["0"].roots[1] for each in (model, model.half())
    ]
    torch.testing.assert_close(*found)


class Recurrent(nn.Module):
    def __init__(self, kind: type[nn.Module]) -> None:
        super().__init__()
        self.a, self.b, self.cudnn = nn.Linear(6, 8), kind(8, 4), True

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.cudnn = torch.backends.cudnn.enabled
        y = self.b(self.a(x))
        return y[0] if isinstance(y, tuple) else y


@pytest.mark.parametrize("kind", [nn.GRU, nn.Linear])
def test_recurrent_networks_are_differentiated_without_cudnn(kind):
    model, x = Recurrent(kind), torch.randn(16, 5, 6)
    layers = take_inventory(model, x[:1]).layers
    collect_metrics(model, [layer for layer in layers if layer.name == "a"], x)
    assert model.cudnn == (kind is nn.Linear)
    assert torch.backends.cudnn.enabled


@pytest.mark.parametrize("scale", [1e-28, 1e-15, 1e15])
def test_a_metric_scales_with_the_outputs_far_below_and_above_what_float32_can_square(scale):
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Conv2d(6, 12, 3), nn.Flatten(), nn.Linear(108, 5)), IMAGES.float()
    layers = take_inventory(model, x[:1]).layers[:1]
    usual = collect_metrics(model, layers, x)["0"]
    with torch.no_grad():
        model[2].weight *= scale
    scaled = collect_metrics(model, layers, x)["0"]
    kernel = layers[0].spec.kernel(model[0].weight)
    torch.testing.assert_close(scaled.of(kernel) / scale, usual.of(kernel), rtol=1e-3, atol=1e-3)


class TwoUnits(nn.Module):
    """Boxes and scores of every place, in one output, each from a layer of its own."""

    def __init__(self, scale, last):
        super().__init__()
        self.boxes, self.scores, self.scale, self.last = nn.Conv2d(6, 8, 1), nn.Conv2d(6, 8, 1), scale, last

    def forward(self, x):
        y = torch.cat([self.scale * self.boxes(x), self.scores(x)], 1).flatten(2)
        return y.mT if self.last else y


@pytest.mark.parametrize("last", [False, True])
def test_the_unit_of_a_part_of_an_output_does_not_matter(last):
    shares = []
    for scale in (1.0, 1e3):
        torch.manual_seed(0)
        model = TwoUnits(scale, last).double()
        found = collect_metrics(model, layers_of(model), IMAGES)
        boxes, scores = (float(found[name].of(torch.ones(1, 8, 6)).norm()) for name in ("boxes", "scores"))
        shares.append(boxes / (boxes + scores))
    assert shares[0] == pytest.approx(0.5, abs=0.1)
    assert shares[1] == pytest.approx(0.5, abs=0.1)
