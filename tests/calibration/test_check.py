"""Images that are not what the network was trained on."""

import pytest
import torch

import tuckertree as tt
from tests import networks
from tuckertree.calibration import Calibration, CalibrationWarning, check_images
from tuckertree.tools.data import open_images
from tuckertree.tools.models import resolve

EXAMPLE = torch.zeros(1, 3, 32, 32)


@pytest.fixture(scope="module")
def sample():
    images = open_images("demo", resolve("demo").preprocessing, split="train", limit=32)
    return torch.stack([image for image, _ in images])


def check(images):
    check_images(tt.build("demo"), Calibration(images), EXAMPLE)


def test_images_of_the_right_kind_pass_in_silence(sample):
    check(sample)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda x: x[..., :24],
            r"images are \[1, 3, 32, 24\] float32, the example input is \[1, 3, 32, 32\]",
        ),
        (lambda x: (x * 40).to(torch.int16), "int16; normalise them as the model's training did"),
        (lambda x: x.log(), "the calibration images hold NaN"),
        (lambda x: x[:0], "there are no calibration images"),
    ],
)
def test_images_that_cannot_be_used_are_refused(sample, change, message):
    with pytest.raises(tt.TuckertreeError, match=message):
        check(change(sample))


@pytest.mark.parametrize("what", ["kernel", "bias"])
def test_weights_that_are_not_finite_are_refused_by_name_before_the_images_are_looked_at(what):
    model = networks.small_cnn()
    getattr(model[2], "weight" if what == "kernel" else "bias").data[0] = float("nan")
    images = torch.randn(8, 3, 8, 8)
    with pytest.raises(tt.TuckertreeError, match=f"^2: the {what} holds NaN or infinite values"):
        tt.compress(model, images[:1], tt.Budget(0.5), calibration=images)


def test_images_of_another_range_are_warned_of(sample):
    with pytest.warns(CalibrationWarning, match="check their normalisation and range"):
        check((sample * 0.25 + 0.5) * 255)
