"""Images are divided evenly wherever they lie, however they come in batches."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tuckertree.calibration import Calibration
from tuckertree.compression.accuracy.parts import Part

SHARES = st.lists(st.integers(1, 3), min_size=2, max_size=3)


def cut(images, sizes):
    """A tensor in batches of these sizes, again and again."""
    parts, start = [], 0
    while start < len(images):
        for size in sizes:
            parts.append(images[start : start + size])
            start += size
    return [part for part in parts if len(part)]


@given(st.integers(0, 60), SHARES, st.lists(st.integers(1, 9), min_size=1, max_size=4), st.integers(1, 10))
def test_parts_are_disjoint_whole_and_even_in_every_stretch(count, shares, sizes, size):
    images = torch.arange(count)[:, None]
    parts = [list(Part(cut(images, sizes), shares, number, size)) for number in range(len(shares))]
    seen = [[int(x) for batch in part for x in batch.flatten()] for part in parts]
    assert sorted(x for part in seen for x in part) == list(range(count))
    for part, share in zip(seen, shares, strict=True):
        assert part == sorted(part)
        block = sum(shares)
        for start in range(0, count // block * block, block):
            assert sum(start <= x < start + block for x in part) == share
    for part in parts:
        assert all(len(batch) == size for batch in part[:-1])
        assert all(0 < len(batch) <= size for batch in part)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=4))
def test_how_images_come_in_batches_changes_nothing(sizes):
    images = torch.arange(40)[:, None]
    one, other = (torch.cat(list(Part(batches, (1, 1), 0, 7))) for batches in ([images], cut(images, sizes)))
    assert torch.equal(one, other)


def test_labels_stay_with_their_images():
    pairs = [(torch.arange(n)[:, None] + 10 * n, torch.arange(n) + 10 * n) for n in (5, 3, 8)]
    for images, labels in Part(pairs, (1, 1), 1, 4):
        assert torch.equal(images[:, 0], labels)


def test_images_of_other_sizes_come_in_batches_of_their_own():
    source = Calibration([torch.zeros(4, 3, 8, 8), torch.zeros(4, 3, 6, 6)], example=torch.zeros(1, 3, 8, 8))
    sizes = {tuple(batch.shape[1:]) for batch in Part(source, (1, 1), 0, 64)}
    assert sizes == {(3, 8, 8), (3, 6, 6)}


def test_a_source_that_fails_is_not_hidden():
    def source():
        yield torch.zeros(2, 3)
        raise RuntimeError("gone")

    with pytest.raises(RuntimeError, match="gone"):
        list(Part(source(), (1, 1), 0, 4))


@pytest.mark.parametrize(("memory", "times"), [(10**6, 1), (100, 3), (0, 3)])
def test_images_are_held_where_there_is_room_for_them(memory, times):
    class Source:
        read = 0

        def __iter__(self):
            self.read += 1
            return iter(cut(torch.arange(40)[:, None], [7]))

    source = Source()
    part = Part(source, (1, 1), 0, 6, memory=memory)
    first, *others = ([batch.tolist() for batch in part] for _ in range(3))
    assert others == [first, first]
    assert source.read == times


def test_of_images_that_are_read_in_part_nothing_is_held():
    part = Part(cut(torch.arange(40)[:, None], [7]), (1, 1), 0, 6)
    next(iter(part))
    assert sum(map(len, part)) == 20
