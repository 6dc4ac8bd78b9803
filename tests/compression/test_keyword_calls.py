"""A layer called by keyword, ``conv(input=x)``, is seen like one called by position, wherever layers are looked at."""

import pytest
import torch
from torch import nn

import tuckertree as tt
from tuckertree.calibration import calibrate
from tuckertree.planning import take_inventory
from tuckertree.runtimes import contract, get_runtime

IMAGES = torch.randn(24, 3, 12, 12, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    """Every kind of layer that a chain stands for, with BatchNorm, called one way or the other."""

    def __init__(self, by_keyword):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.stem, self.norm = nn.Conv2d(3, 16, 3, bias=False), nn.BatchNorm2d(16)
            self.deep = nn.Conv2d(16, 24, 3, padding=1)
            self.up = nn.ConvTranspose2d(24, 16, 3, stride=2, output_padding=1)
            self.line = nn.Conv1d(16, 16, 3)
            self.head = nn.Linear(16, 10)
        self.by_keyword = by_keyword

    def call(self, layer, x):
        return layer(input=x) if self.by_keyword else layer(x)

    def forward(self, x):
        x = self.call(self.norm, self.call(self.stem, x)).relu()
        x = self.call(self.up, self.call(self.deep, x).relu()).relu()
        return self.call(self.head, self.call(self.line, x.mean(3)).relu().mean(2))


def both():
    return Net(False).eval(), Net(True).eval()


def test_the_inventory_is_the_same():
    by_position, by_keyword = both()
    inventory = take_inventory(by_keyword, IMAGES[:2])
    assert inventory == take_inventory(by_position, IMAGES[:2])
    assert [layer.name for layer in inventory.layers] == ["stem", "deep", "up", "line", "head"]
    assert all(layer.calls and not layer.skip_reason for layer in inventory.layers)


@pytest.mark.filterwarnings("ignore::tuckertree.calibration.moments.CalibrationWarning")
@pytest.mark.parametrize(
    "options",
    [
        {"energy": 0.6},
        {"energy": 0.6, "calibration": IMAGES},
        *(
            {"rule": tt.Budget(macs=0.6), "objective": name, "calibration": IMAGES}
            for name in ("outputs", "moments", "sensitivity")
        ),
    ],
    ids=["energy", "calibrated", "outputs", "moments", "sensitivity"],
)
def test_the_compressed_networks_are_the_same(options):
    ours, theirs = (tt.compress(model, IMAGES[:1], **options) for model in both())
    assert ours.plan == theirs.plan
    for (name, value), other in zip(
        ours.model.state_dict().items(), theirs.model.state_dict().values(), strict=True
    ):
        assert torch.equal(value, other), name
    with torch.no_grad():
        assert torch.equal(ours.model(IMAGES), theirs.model(IMAGES))


@pytest.mark.filterwarnings("ignore::tuckertree.calibration.moments.CalibrationWarning")
def test_calibration_in_passes_and_without_correction_is_the_same():
    plan = tt.compress(Net(False).eval(), IMAGES[:1], energy=0.6).plan
    for options in ({"activations": 0}, {"correction": False}):
        ours, theirs = (calibrate(model, plan, IMAGES, **options) for model in both())
        assert all(map(torch.equal, ours.state_dict().values(), theirs.state_dict().values()))


def test_chains_are_contracted_where_they_are_called_by_keyword():
    model = tt.compress(Net(True).eval(), IMAGES[:1], energy=0.6).model
    done = contract(model, get_runtime("torch"), IMAGES[:1], repeats=5)
    assert {layer.name for layer in done.layers} == {"stem", "deep", "up", "line", "head"}
