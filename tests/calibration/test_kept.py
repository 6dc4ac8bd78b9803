"""What is excluded or frozen stays as it is, to the bit."""

import warnings

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import tuckertree as tt
from tests.calibration.cases import generator
from tests.strategies import examples
from tuckertree.calibration import CalibrationWarning, output_distances

IMAGES = torch.rand(64, 3, 10, 10, generator=generator())


def block(inputs: int, outputs: int, groups: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, 3, padding=1, groups=groups, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


class WithHead(nn.Module):
    """A body, and a head with a norm that follows no layer at once, a depthwise layer and one behind the head."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(block(3, 24), block(24, 24), block(24, 24))
        self.head = nn.ModuleDict(
            {"norm": nn.BatchNorm2d(48), "deep": block(48, 48, 48), "out": nn.Conv2d(48, 16, 1)}
        )
        self.last = nn.BatchNorm2d(16)

    def forward(self, x: Tensor) -> Tensor:
        x = self.body(x)
        x = self.head["deep"](self.head["norm"](torch.cat([x, -x], 1)))
        return self.last(self.head["out"](x))


def changed(model: nn.Module, compressed: nn.Module) -> set[str]:
    """Names of parameters and buffers that both have and that differ."""
    ours, theirs = model.state_dict(), compressed.state_dict()
    return {name for name in ours.keys() & theirs.keys() if not torch.equal(ours[name], theirs[name])}


@pytest.mark.parametrize("choice", [{"exclude": "head.*"}, {"include": "body.*"}])
def test_nothing_of_a_head_that_is_left_out_changes_nor_the_norm_behind_it(choice):
    model = WithHead().eval()
    result = tt.compress(model, IMAGES[:1], tt.Budget(macs=0.5), calibration=IMAGES, **choice)
    assert changed(model, result.model)
    assert all(name.startswith("body.") for name in changed(model, result.model))


def test_a_layer_that_is_frozen_among_others_is_not_refitted_nor_is_its_norm_touched():
    model = WithHead().eval()
    model.head.requires_grad_(False)
    model.last.requires_grad_(False)
    result = tt.compress(model, IMAGES[:1], tt.Ranks({"body.*": 6}), calibration=IMAGES)
    assert changed(model, result.model)
    assert all(name.startswith("body.") for name in changed(model, result.model))


def test_the_bias_of_a_compressed_layer_stays_where_it_is_frozen():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 24, 3), nn.ReLU(), nn.Conv2d(24, 24, 3), nn.ReLU(), nn.Conv2d(24, 8, 1)
    )
    model.eval()[2].bias.requires_grad_(False)
    result = tt.compress(model, IMAGES[:1], tt.Ranks({"2": 6}), include="2", calibration=IMAGES)
    assert torch.equal(result.model[2].bias, model[2].bias)


def test_a_network_that_takes_no_gradient_at_all_is_fitted_as_one_that_does():
    model = WithHead().eval()
    fitted = tt.compress(model, IMAGES[:1], tt.Energy(0.6), calibration=IMAGES).model
    frozen = tt.compress(model.requires_grad_(False), IMAGES[:1], tt.Energy(0.6), calibration=IMAGES).model
    assert not changed(fitted, frozen)


def test_a_running_mean_is_not_shifted_where_something_stands_between():
    """In place, so that it is the same tensor."""
    torch.manual_seed(0)
    between = nn.Sequential(nn.Conv2d(3, 16, 3, bias=False), nn.ReLU(inplace=True), nn.BatchNorm2d(16)).eval()
    images = IMAGES[:1].repeat(4, 1, 1, 1)
    result = tt.compress(between, images[:1], tt.Ranks({"0": 2}), calibration=images[:1])
    assert torch.equal(result.model[2].running_mean, between[2].running_mean)


@st.composite
def networks(draw: st.DrawFn) -> tuple[nn.Sequential, list[str], list[str]]:
    """A random chain of layers, some of them excluded and some frozen."""
    torch.manual_seed(draw(st.integers(0, 2**16)))
    modules: list[nn.Module] = [nn.Conv2d(3, 16, 3, padding=1)]
    for _ in range(draw(st.integers(1, 4))):
        width = 16 * draw(st.integers(1, 2))
        inputs = next(m.out_channels for m in reversed(modules) if isinstance(m, nn.Conv2d))
        groups = draw(st.sampled_from([1, 1, 1, 2, 16]))
        modules += [draw(st.sampled_from([nn.ReLU, nn.Identity]))()]
        modules += [
            nn.Conv2d(inputs, width, draw(st.sampled_from([1, 3])), groups=groups, bias=draw(st.booleans()))
        ]
        modules += [nn.BatchNorm2d(width)] if draw(st.booleans()) else []
    layers = [str(i) for i, module in enumerate(modules) if isinstance(module, nn.Conv2d)]
    excluded = draw(st.lists(st.sampled_from(layers[1:]), unique=True))
    frozen = draw(st.lists(st.sampled_from(layers[1:]), unique=True))
    model = nn.Sequential(*modules).eval()
    for name in frozen:
        model.get_submodule(name).requires_grad_(False)
    return model, excluded, frozen


@examples(25)
@given(networks())
def test_calibration_never_touches_what_is_left_out_and_never_does_worse_on_its_images(drawn):
    model, excluded, frozen = drawn
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CalibrationWarning)
        result = tt.compress(model, IMAGES[:1], tt.Ranks({"*": 5}), exclude=excluded, calibration=IMAGES[:32])
    kept = [layer.name for layer in result.plan.layers if layer.method == "dense"]
    kept = [name for name in kept if name in excluded or name in frozen]
    behind = [str(int(name) + 1) for name in kept if int(name) + 1 < len(model)]
    assert not any(name.split(".")[0] in (*kept, *behind) for name in changed(model, result.model))
    plain = tt.apply(model, result.plan)
    before, after = output_distances(model, (plain, result.model), IMAGES[:32])
    assert after <= before + 1e-5
