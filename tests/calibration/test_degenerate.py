"""Images, and layers, of which there is little to learn."""

import warnings

import pytest
import torch
from torch import Tensor, nn

import tuckertree as tt
from tests import networks
from tests.calibration.cases import generator
from tests.calibration.test_calibrate import with_norms
from tuckertree.calibration import CalibrationWarning, calibrate, output_distances
from tuckertree.calibration.distances import Comparison, nearer
from tuckertree.calibration.fitting import ASTRAY
from tuckertree.calibration.moment import MomentSum
from tuckertree.core.layers import LayerSpec

RANDOM = torch.rand(64, 3, 12, 12, generator=generator())
FEW = {
    "black": torch.zeros(16, 3, 12, 12),
    "of one grey": torch.full((16, 3, 12, 12), 0.7),
    "one": RANDOM[:1],
    "the same one": RANDOM[:1].repeat(80, 1, 1, 1),
    "of one colour": torch.rand(1, 3, 1, 1, generator=generator()).expand(70, 3, 12, 12),
}


@pytest.mark.filterwarnings("ignore::tuckertree.calibration.CalibrationWarning")
@pytest.mark.parametrize("images", FEW.values(), ids=FEW)
@pytest.mark.parametrize("rule", [tt.Energy(0.6), tt.Budget(macs=0.6)])
@pytest.mark.parametrize("build", [networks.small_cnn, with_norms])
def test_images_that_hardly_differ_calibrate_and_do_no_harm(images, rule, build):
    model = build()
    result = tt.compress(model, images[:1], rule, calibration=images)
    before, after = output_distances(model, (tt.apply(model, result.plan), result.model), images)
    assert after <= before + 1e-5
    assert result.model(RANDOM).isfinite().all()


class Query(nn.Module):
    """A branch that depends on no image, and a group of channels that are always zero."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = nn.Conv2d(3, 32, 3), nn.Conv2d(32, 32, 3, groups=2)
        self.query = nn.Parameter(torch.randn(1, 64))
        self.mlp = nn.Sequential(nn.Linear(64, 64, bias=False), nn.ReLU(), nn.Linear(64, 32))

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x).relu()
        return self.b(torch.cat([0 * x[:, :16], x[:, 16:]], 1)) + self.mlp(self.query)[:, :, None, None]


@pytest.mark.filterwarnings("ignore:fewer calibration patches")
@pytest.mark.parametrize("count", [10, 64])
def test_a_layer_that_always_sees_the_same_gives_it_exactly(count):
    model = Query().eval()
    plan = tt.compress(model, RANDOM[:1], energy=0.6).plan
    fitted = calibrate(model, plan, RANDOM[:count], activations=0)
    branch, expected = fitted.mlp(fitted.query), model.mlp(model.query)
    torch.testing.assert_close(branch, expected, rtol=1e-3, atol=1e-3)


def test_what_does_not_vary_has_a_covariance_of_zero_and_what_hardly_does_keeps_its_digits():
    layer = nn.Linear(5, 4)
    row, noise = torch.rand(1, 1, 5, generator=generator()), torch.randn(1, 999, 5, generator=generator())
    constant, varying = MomentSum(LayerSpec.of(layer)), MomentSum(LayerSpec.of(layer))
    for start in range(0, 999, 333):
        constant.add(row.expand(1, 333, 5), "x")
        varying.add(1000 + 0.01 * noise[:, start : start + 333], "x")
    assert not constant.result("x").centred().patch.abs().max() > 1e-15
    rounded = (1000 + 0.01 * noise[0]).double()
    torch.testing.assert_close(
        varying.result("x").centred().patch[0], torch.cov(rounded.mT, correction=0), rtol=1e-4, atol=1e-9
    )


class InPlace(nn.Module):
    """Normalises its input where it stands, and adds to what a layer has seen."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.c = nn.Conv2d(3, 32, 3), nn.Conv2d(32, 32, 3), nn.Conv2d(32, 32, 1)
        self.adds = True

    def forward(self, x: Tensor) -> Tensor:
        x = self.b(self.a(x.sub_(0.5).div_(0.5)).relu_())
        y = self.c(x).relu_()
        return x.add_(y) if self.adds else x + y


@pytest.mark.filterwarnings("ignore:fewer calibration patches")
@pytest.mark.parametrize("objective", [None, "moments", "sensitivity", "outputs"])
def test_a_forward_that_changes_its_input_in_place_changes_nothing_of_the_callers(objective):
    model, images, example = InPlace().eval(), RANDOM.clone(), RANDOM[:1].clone()
    rule = tt.Energy(0.6) if objective is None else tt.Budget(macs=0.6)
    model.adds = objective != "outputs"  # that has no derivative
    result = tt.compress(model, example, rule, calibration=images, objective=objective)
    assert torch.equal(images, RANDOM)
    assert torch.equal(example, RANDOM[:1])
    before, after = output_distances(model, (tt.apply(model, result.plan), result.model), images)
    assert after < before


def test_a_moment_is_of_what_the_layer_saw_whatever_is_done_to_it_later():
    model = InPlace().eval()
    plan = tt.compress(model, RANDOM[:1], energy=0.6).plan
    alone = calibrate(model, plan, RANDOM, correction=False, memory=4 * 8 * 288**2)
    together = calibrate(model, plan, RANDOM, correction=False)
    torch.testing.assert_close(alone(RANDOM.clone()), together(RANDOM.clone()), rtol=1e-3, atol=1e-4)


def test_whatever_the_images_no_weight_goes_astray():
    """What the images do not show is not fitted to: other images are to come."""
    model = tt.build("demo")
    black = torch.full((8, 3, 32, 32), -2.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CalibrationWarning)
        result = tt.compress(model, black[:1], tt.Energy(0.5), calibration=black)
    assert max(result.errors.values()) < 1.05 * ASTRAY


def test_where_fitting_brings_the_outputs_no_nearer_the_plain_decomposition_is_given():
    model = networks.small_cnn()
    near, far = (tt.compress(model, RANDOM[:1], energy=energy).model for energy in (0.6, 0.3))
    comparison = Comparison(model, RANDOM)
    assert nearer(far, near, comparison) is near
    with pytest.warns(CalibrationWarning, match="no.* nearer to the original's: left as decomposed"):
        assert nearer(near, far, comparison) is near
