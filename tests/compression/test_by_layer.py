"""Where the distance of a compressed network comes from: its original is made the compressed one, layer after layer."""

import copy

import pytest
import torch
from torch import nn

import tuckertree as tt
from tuckertree.calibration import output_distances
from tuckertree.planning.channels import CHANNELS

IMAGES = torch.randn(40, 3, 12, 12, generator=torch.Generator().manual_seed(1))
FITTED, OTHERS = IMAGES[:32], IMAGES[32:]


class Crossed(nn.Module):
    """Its layers are called in another order than they are made in, one of them twice and under two names."""

    def __init__(self):
        super().__init__()
        self.last = nn.Conv2d(24, 8, 3)
        self.first = nn.Conv2d(3, 24, 3, padding=1)
        self.again = self.inner = nn.Conv2d(24, 24, 3, padding=1)

    def forward(self, x):
        x = self.first(x).relu()
        return self.last(self.again(self.inner(x).relu()).relu())


class Active(nn.BatchNorm2d):
    """A BatchNorm with a module of its own, as timm has them."""

    def __init__(self, channels):
        super().__init__(channels)
        self.act = nn.ReLU()

    def forward(self, x):
        return self.act(super().forward(x))


def inverted(norm=nn.BatchNorm2d):
    def block():
        return [
            nn.Conv2d(16, 48, 1), norm(48), nn.ReLU(),
            nn.Conv2d(48, 48, 3, padding=1, groups=48), nn.BatchNorm2d(48), nn.ReLU(),
            nn.Conv2d(48, 16, 1), nn.BatchNorm2d(16),
        ]  # fmt: skip

    return nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), *block(), *block())


def made(build):
    torch.manual_seed(0)
    return build().eval()


@pytest.mark.parametrize(
    ("build", "methods"),
    [
        (Crossed, ("ht2", "spatial")),
        (inverted, (CHANNELS,)),
        (lambda: inverted(Active), (CHANNELS,)),
        (lambda: nn.Conv2d(3, 32, 5), ("ht2",)),
    ],
)
def test_shares_add_up_and_the_last_distance_is_that_of_the_whole(build, methods):
    model = made(build)
    before = copy.deepcopy(model.state_dict())
    result = tt.compress(model, IMAGES[:1], tt.Budget(macs=0.6), calibration=FITTED, methods=methods)
    found = tt.distance_by_layer(result, model, IMAGES, start=32)
    assert found.images == 8
    assert sum(rise.share for rise in found.rises) == pytest.approx(1)
    whole = output_distances(model, (result.model,), [OTHERS])[0]
    assert found.rises[-1].distance == pytest.approx(whole, rel=1e-5)
    changed = {name for rise in found.rises for name in rise.layers}
    expected = {layer.name for layer in result.plan.compressed}
    assert changed == expected | {
        name for each in result.plan.pruned for name in (*each.hidden.producers, *each.hidden.consumers)
    }
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_layers_come_in_the_order_in_which_they_are_called():
    model = made(Crossed)
    result = tt.compress(model, IMAGES[:1], energy=0.6, first="ht2", calibration=FITTED)
    found = tt.distance_by_layer(result, model, OTHERS)
    assert [rise.layers for rise in found.rises] == [("first",), ("again",), ("last",)]
    squares = [0.0, *(rise.distance**2 for rise in found.rises)]
    for rise, last, square in zip(found.rises, squares, squares[1:], strict=False):
        assert rise.share == pytest.approx((square - last) / squares[-1])
    assert found.worst(1)[0] == max(found.rises, key=lambda rise: rise.share)
    assert "first" in str(found)


def test_a_distance_up_to_a_layer_is_that_of_the_mixed_network():
    model = made(Crossed)
    result = tt.compress(model, IMAGES[:1], energy=0.6, first="ht2", calibration=FITTED)
    found = tt.distance_by_layer(result, model, OTHERS)
    mixed = copy.deepcopy(model)
    mixed.first, mixed.inner = result.model.first, result.model.inner
    mixed.again = mixed.inner
    expected = output_distances(model, (mixed,), [OTHERS])[0]
    assert found.rises[1].distance == pytest.approx(expected, rel=1e-5)


def test_an_onnx_file_holds_its_own_original(tmp_path):
    model = made(lambda: nn.Sequential(nn.Conv2d(3, 24, 3), nn.ReLU(), nn.Conv2d(24, 24, 3)))
    pytest.importorskip("onnxruntime")
    path = tt.export(model, tmp_path / "model.onnx", IMAGES[:1]).path
    result = tt.compress(path, None, tt.Budget(macs=0.5), calibration=FITTED)
    found = tt.distance_by_layer(result, None, OTHERS)
    names = {name for rise in found.rises for name in rise.layers}
    assert names
    assert names <= {layer.name for layer in result.plan.layers}
    assert sum(rise.share for rise in found.rises) == pytest.approx(1)


def test_what_is_missing_is_said():
    model = made(Crossed)
    result = tt.compress(model, IMAGES[:1], energy=0.6, calibration=FITTED)
    with pytest.raises(tt.UsageError, match="no images from number 40 on: there are 40"):
        tt.distance_by_layer(result, model, IMAGES, start=40)
    with pytest.raises(tt.UsageError, match="give the original network too"):
        tt.distance_by_layer(result, None, IMAGES)
    with pytest.raises(tt.UsageError, match="start is the number of an image, not -1"):
        tt.distance_by_layer(result, model, IMAGES, start=-1)
    with pytest.raises(tt.UsageError, match="the result that compress"):
        tt.distance_by_layer(result.model, model, IMAGES)
    with torch.no_grad():
        next(result.model.last.parameters()).fill_(1e38)
    with pytest.raises(tt.TuckertreeError, match="not finite"):
        tt.distance_by_layer(result, model, IMAGES)
    with pytest.raises(tt.TuckertreeError, match="do not belong together"):
        tt.distance_by_layer(result, made(inverted), IMAGES)
