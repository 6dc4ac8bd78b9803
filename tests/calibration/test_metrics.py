"""The metric of a budget with images: what the network's output sees of a layer's error."""

import pytest
import torch
from torch import nn

from tuckertree.calibration import collect_metrics
from tuckertree.calibration.metrics import MetricSum
from tuckertree.errors import TuckertreeError
from tuckertree.layers import LayerSpec
from tuckertree.planning import Layer, take_inventory

IMAGES = torch.randn(48, 6, 5, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def layers_of(model):
    return take_inventory(model, IMAGES[:1]).layers


@pytest.mark.parametrize("groups", [1, 2])
def test_the_root_of_the_inputs_is_that_of_their_channel_moment(groups):
    model = nn.Sequential(nn.Conv2d(6, 4, 3, groups=groups)).double()
    (found,) = collect_metrics(model, layers_of(model), IMAGES, gradients=False).values()
    columns = IMAGES.movedim(1, 0).reshape(groups, 6 // groups, -1)
    expected = columns @ columns.mT / columns.shape[-1]
    torch.testing.assert_close(found.inputs @ found.inputs, expected)
    assert found.outputs is None


def test_a_linear_network_needs_no_independence():
    # y = B (A x): the error D of A changes y by B D x, so the metric is exact.
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8, bias=False), nn.Linear(8, 3, bias=False)).double()
    x = IMAGES.movedim(1, -1).reshape(-1, 6)
    layers = take_inventory(model, x[:1]).layers
    metric = collect_metrics(model, layers, x, count=len(x))["0"]
    error = torch.randn(8, 6, dtype=torch.float64)
    seen = metric.of(layers[0].spec.kernel(error)).square().sum()
    change = x @ error.T @ model[1].weight.T
    # Logits that rise together are not seen; random directions stand for the average over all.
    change = (change - change.mean(1, keepdim=True)).square().sum(1).mean()
    assert float(seen) == pytest.approx(float(change.detach()), rel=0.1)


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


def test_directions_that_no_image_has_shown_are_not_free_where_they_are_shrunk():
    spec = LayerSpec(8, 4)
    layer = Layer("a", (), spec, (), "", False)
    roots = []
    for shrink in (False, True):
        total = MetricSum(layer)
        total.add_inputs(torch.randn(3, 8, generator=torch.Generator().manual_seed(0)))
        roots.append(torch.linalg.eigvalsh(total.result("a", gradients=False, shrink=shrink).inputs[0]))
    assert roots[0][0] < 1e-2 * roots[0][-1]
    assert roots[1][0] > 0.1 * roots[1][-1]
