"""Augmentation: exactly the pixels that are permitted, and functions of seed, epoch and image alone."""

import multiprocessing
import os
import signal

import pytest
import torch
from torch.nn import functional

from tests.tools.training.cases import demo_images
from tuckertree.tools.training.augment import cutout, flip_crop
from tuckertree.tools.training.randomness import draw_moves, shuffled
from tuckertree.tools.training.sources import DecodedImages, Order, ResidentImages, in_order

CPU = torch.device("cpu")


@pytest.fixture
def images():
    return torch.randint(
        0, 256, (64, 3, 12, 10), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )


def test_a_crop_is_a_window_of_the_padded_image_mirrored_or_not(images):
    moves = draw_moves(64, (12, 10), 0, 0)
    padded = functional.pad(images, (4, 4, 4, 4))
    for image, (down, right, mirrored, *_), found in zip(
        padded, moves.tolist(), flip_crop(images, moves), strict=True
    ):
        window = image[:, down : down + 12, right : right + 10]
        assert torch.equal(found, window.flip(2) if mirrored else window)


def test_no_move_is_the_image_itself(images):
    assert torch.equal(flip_crop(images, torch.tensor([[4, 4, 0]] * 64)), images)


def test_moves_cover_their_range_evenly():
    moves = draw_moves(9000, (12, 10), 0, 0)
    for column, ends in enumerate((9, 9, 2, 12, 10)):
        counts = torch.bincount(moves[:, column])
        assert len(counts) == ends
        assert (counts - 9000 / ends).abs().max() < 5 * (9000 / ends) ** 0.5


def test_cutout_blanks_a_square_and_nothing_else():
    images = torch.rand(50, 3, 12, 12) + 1
    moves = draw_moves(50, (12, 12), 0, 0)
    for image, (*_, row, column), found in zip(images, moves.tolist(), cutout(images, moves), strict=True):
        expected = image.clone()
        expected[:, max(row - 3, 0) : row + 3, max(column - 3, 0) : column + 3] = 0
        assert torch.equal(found, expected)


def test_a_worker_that_is_told_to_end_reads_on():
    source = DecodedImages(demo_images(8), "none", 0)
    batches = iter(source.loader(lambda: iter([(0, torch.arange(i, i + 2)) for i in range(0, 8, 2)]), 1))
    next(batches)
    (worker,) = multiprocessing.active_children()
    for number in (signal.SIGINT, signal.SIGTERM):
        os.kill(worker.pid, number)
    assert len(list(batches)) == 3


@pytest.mark.parametrize("kind", [ResidentImages, DecodedImages])
def test_an_image_does_not_depend_on_the_batch_it_is_in(kind):
    def prepared(numbers, epoch, seed=0):
        source = kind(demo_images(20), "cutout", seed)
        loader = source.loader(lambda: iter([(epoch, torch.tensor(numbers))]), workers=0)
        (batch,) = loader
        return source.prepare(batch, CPU)

    images, labels = prepared([3, 7, 11], epoch=1)
    again, same = prepared([11, 0, 3], epoch=1)
    assert torch.equal(images[[0, 2]], again[[2, 0]])
    assert labels[0] == same[2]
    assert not torch.equal(prepared([3, 7, 11], epoch=2)[0], images)
    assert not torch.equal(prepared([3, 7, 11], epoch=1, seed=1)[0], images)
    plain, _ = prepared([5], epoch=None)
    assert torch.equal(plain[0], demo_images(20)[5][0])


def test_a_part_of_a_photograph_is_a_function_of_seed_epoch_and_image():
    pytest.importorskip("torchvision")

    def prepared(numbers, epoch):
        source = DecodedImages(demo_images(20), "imagenet", 0)
        (batch,) = source.loader(lambda: iter([(epoch, torch.tensor(numbers))]), workers=0)
        return source.prepare(batch, CPU)[0]

    state = torch.get_rng_state()
    assert torch.equal(prepared([3, 7], 1)[1], prepared([7], 1)[0])
    assert not torch.equal(prepared([3, 7], 1), prepared([3, 7], 2))
    assert torch.equal(torch.get_rng_state(), state)


def test_the_order_of_an_epoch_can_be_entered_anywhere_and_divided():
    order = Order(count=23, batch_size=6, seed=0)
    batches = [numbers for _, numbers in order.epoch(2, first=0, rank=0, world=1)]
    assert [len(numbers) for numbers in batches] == [6, 6, 6]
    assert len(torch.cat(batches).unique()) == 18
    for whole, (_, numbers) in zip(batches[1:], order.epoch(2, first=1, rank=0, world=1), strict=True):
        assert torch.equal(whole, numbers)
    shares = [[numbers for _, numbers in order.epoch(2, 0, rank, world=2)] for rank in range(2)]
    for whole, one, other in zip(batches, *shares, strict=True):
        assert set(whole.tolist()) == set(one.tolist()) | set(other.tolist())
        assert len(one) == len(other)
    assert not torch.equal(shuffled(23, 0, 1), shuffled(23, 0, 2))
    validated = [n for rank in range(2) for _, numbers in in_order(7, rank, 2) for n in numbers.tolist()]
    assert sorted(validated) == list(range(7))
