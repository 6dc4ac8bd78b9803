"""How long tuning lasts, and the images of its steps."""

import pytest
import torch
from torch import nn

import tuckertree as tt
from tests.calibration.cases import generator
from tests.calibration.tuning_cases import IMAGES, WithNorms, ranks
from tuckertree.calibration import Length
from tuckertree.calibration.sources import Calibration
from tuckertree.calibration.tuning.images import TuningImages, flip_and_shift, usual_size


@pytest.mark.parametrize(
    ("text", "length"),
    [
        ("5min", Length(seconds=300.0)),
        ("90s", Length(seconds=90.0)),
        ("0.5 h", Length(seconds=1800.0)),
        ("300", Length(300)),
        (300, Length(300)),
    ],
)
def test_a_length_is_read(text, length):
    assert Length.of(text) == length


@pytest.mark.parametrize("text", ["", "5", "min", "-5min", "0s", "0", 0, -1, True, 2.5, "5 weeks", "nan min"])
def test_what_is_no_length_is_refused(text):
    if text == "5":
        assert Length.of(text) == Length(5)
        return
    with pytest.raises(tt.UsageError):
        Length.of(text)


@pytest.mark.parametrize(
    "given", [{}, {"steps": 3, "minutes": 1}, {"minutes": float("nan")}, {"minutes": -1}]
)
def test_minutes_or_steps_must_be_given(given):
    model = WithNorms()
    with pytest.raises(tt.UsageError):
        tt.tune(ranks(model), model, IMAGES, **given)


def test_the_last_images_are_held_out_and_the_others_come_once_each_time():
    images = TuningImages(Calibration(IMAGES), 16)
    assert len(images) == 128
    assert torch.equal(torch.cat(list(images.held)), IMAGES[128:])
    drawn = images.steps(generator(), moved=False)
    seen = torch.cat([batch for _ in range(8) for batch in next(drawn)])
    assert sorted(x.sum().item() for x in seen) == sorted(x.sum().item() for x in IMAGES[:128])


def test_batches_that_cannot_be_put_together_make_up_a_step_each_whole():
    images = TuningImages(Calibration([IMAGES[:8], IMAGES[:8, :, :9], *IMAGES[:80].split(8)]), 16)
    assert (images.size, images.at_once) == (16, 8)
    assert [len(batch) for batch in next(images.steps(generator(), moved=False))] == [8, 8]


def test_moved_images_are_the_images_mirrored_or_shifted():
    images = torch.arange(2 * 3 * 16 * 16.0).reshape(2, 3, 16, 16)
    seen = set()
    for seed in range(60):
        moved = flip_and_shift(images, generator(seed))
        assert moved.shape == images.shape
        for image, new in zip(images, moved, strict=True):
            inner = new[:, 2:-2, 2:-2]
            places = [
                (flip, row, column)
                for flip in (False, True)
                for row in range(5)
                for column in range(5)
                if torch.equal(
                    inner, (image.flip(2) if flip else image)[:, row : row + 12, column : column + 12]
                )
            ]
            assert len(places) == 1
            seen.add(places[0])
    assert len(seen) > 30


@pytest.mark.parametrize(
    ("width", "images", "size"), [(8, IMAGES, 64), (8, torch.zeros(2, 3, 65, 65), 16), (65536, IMAGES, 16)]
)
def test_steps_are_of_fewer_images_where_these_are_large_or_much_work(width, images, size):
    model = nn.Sequential(nn.Conv2d(3, width, 3), nn.Conv2d(width, 16, 3)).eval()
    assert usual_size(model, Calibration(images)) == size
