"""What the numbers of an output count: a detector's where something is detected, others by their deviations."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import tuckertree as tt
from tuckertree.calibration.distances import output_distances, squared_error
from tuckertree.calibration.units import Detections, units_of

PLACES, CLASSES = 60, 6


def detector_output(seed=0, *, gated, last, images=3, scale=1.0):
    """Boxes of any size, and scores that are high in one place of each image."""
    generator = torch.Generator().manual_seed(seed)
    boxes = scale * torch.randn(images, PLACES, 4, generator=generator)
    classes = torch.rand(images, PLACES, CLASSES, generator=generator)
    is_there = torch.full((images, PLACES, 1), 0.01)
    is_there[:, 7] = 0.9
    y = torch.cat([boxes, is_there, classes] if gated else [boxes, is_there * classes], 2)
    return y if last else y.mT.contiguous()


@pytest.mark.parametrize("gated", [False, True], ids=["classes", "objectness"])
@pytest.mark.parametrize("last", [False, True], ids=["numbers first", "numbers last"])
def test_a_detector_is_known_by_its_numbers(gated, last):
    y = detector_output(gated=gated, last=last)
    found = Detections.in_(y)
    assert found is not None
    assert (found.axis, found.gated) == (2 if last else 1, gated)
    assert found.scores.tolist() == [False] * 4 + [True] * (CLASSES + gated)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.booleans(), st.booleans(), st.sampled_from([1e-2, 1.0, 300.0]))
def test_boxes_count_where_something_is_in_any_unit(seed, gated, last, scale):
    y = detector_output(seed, gated=gated, last=last, scale=scale)

    def cost(place):
        z = (y if last else y.mT).clone()
        z[:, place, :4] += 0.5 * scale
        return squared_error([y], [[z if last else z.mT]], in_units=True)[1][0]

    assert cost(7) > 100 * cost(8)
    other = detector_output(seed, gated=gated, last=last)
    alike = units_of(y)(y).square().sum() / units_of(other)(other).square().sum()
    assert alike == pytest.approx(1, rel=0.02)


def test_a_false_detection_counts_and_a_class_of_nothing_does_not():
    y = detector_output(gated=True, last=True)
    false, nothing = y.clone(), y.clone()
    false[:, 8, 4] = 0.5
    nothing[:, 8, 5:] = 1 - nothing[:, 8, 5:]
    _, (seen,) = squared_error([y], [[false]], in_units=True)
    _, (unseen,) = squared_error([y], [[nothing]], in_units=True)
    assert seen > 100 * unseen > 0


def test_many_detections_of_a_class_are_no_objectness():
    y = torch.cat([torch.randn(3, PLACES, 4), torch.full((3, PLACES, CLASSES), 0.01)], 2)
    y[:, ::5, 7] = 0.9
    found = Detections.in_(y)
    assert found is not None
    assert not found.gated


def test_boxes_in_pixels_count_in_half_precision():
    y = detector_output(gated=True, last=True, scale=600.0).half()
    units = units_of(y)
    assert units(y).isfinite().all()
    assert units(y)[:, 7, :4].abs().max() > 0.1


@pytest.mark.parametrize("seed", range(20))
def test_tokens_behind_a_rectifier_are_no_detections(seed):
    generator = torch.Generator().manual_seed(seed)
    y = torch.randn(4, 196, 64, generator=generator) * torch.rand(64, generator=generator)
    assert Detections.in_(y.relu()) is None


@pytest.mark.parametrize(
    "y",
    [
        torch.randn(3, 4, 5, 5),
        torch.randn(3, 50, 12),
        torch.rand(3, 50, 12),
        torch.cat([torch.randn(3, 50, 4), torch.rand(3, 50, 8)], 2),  # scores that say nothing
        torch.cat([torch.randn(3, 8, 4), torch.full((3, 8, 8), 0.01)], 2),  # as few places as numbers
        torch.cat([torch.full((3, 50, 8), 0.01), torch.randn(3, 50, 4)], 2),  # no boxes come first
        torch.cat([torch.randn(3, 50, 4), torch.zeros(3, 50, 8)], 2),  # nothing anywhere
        torch.cat([torch.randn(3, 50, 4), (9 * torch.randn(3, 50, 8)).softmax(2)], 2),  # with a background
    ],
    ids=["maps", "tokens", "shares", "everywhere", "few places", "scores first", "nothing", "softmax"],
)
def test_anything_else_counts_by_its_deviations(y):
    assert Detections.in_(y) is None
    assert units_of(y)(y).shape == y.shape


def test_classes_count_as_they_are():
    y = torch.randn(5, 10)
    assert torch.equal(units_of(y)(y), y)


class Detector(nn.Module):
    """Boxes, objectness and classes of a grid, decided by two layers behind a common one."""

    def __init__(self):
        super().__init__()
        self.common, self.boxes = nn.Conv2d(3, 24, 3, padding=1), nn.Conv2d(24, 4, 3, padding=1)
        self.scores = nn.Conv2d(24, 7, 3, padding=1)

    def forward(self, x):
        x = self.common(x).relu()
        scores = self.scores(x).flatten(2)
        scores = torch.cat([scores[:, :1] * 16 - 8, scores[:, 1:]], 1).sigmoid()
        return torch.cat([30 * self.boxes(x).flatten(2), scores], 1).mT


def test_a_detector_is_compressed_and_tuned_where_it_detects():
    torch.manual_seed(0)
    model, images = Detector().eval(), torch.randn(32, 3, 16, 16)
    assert Detections.in_(model(images)) is not None
    result = tt.compress(model, images[:1], tt.Budget(macs=0.6), calibration=images)
    tuned = tt.tune(result, model, images, steps=30)
    before, after = output_distances(model, (result.model, tuned.model), images, in_units=True)
    assert after < before < 1
