import pytest
import torch
from torch.utils.data import DataLoader

from tuckertree._base.errors import TuckertreeError, UsageError
from tuckertree.tools.data import Preprocessing, batches, open_images

CIFAR10 = Preprocessing((32, 32))


@pytest.mark.parametrize(("split", "size", "fewest"), [("test", 1000, 100), ("train", 256, 25)])
def test_packaged_sample_is_balanced(split, size, fewest) -> None:
    images = open_images("demo", CIFAR10, split=split)
    counts = torch.tensor([images.label(number) for number in range(len(images))]).bincount()
    assert len(images) == size
    assert len(counts) == 10
    assert set(counts.tolist()) <= {fewest, fewest + 1}
    assert images.labelled
    assert images.classes is not None
    assert images.classes[0] == "airplane"


def test_items_are_preprocessed_images_and_labels() -> None:
    images = open_images("demo", CIFAR10)
    image, label = images[3]
    assert (image.dtype, image.shape) == (torch.float32, (3, 32, 32))
    assert torch.equal(image, CIFAR10.normalise(images.pixels(3)[None])[0])
    assert label == images.label(3)
    assert images.source == "demo (test)"


def test_iteration_ends() -> None:
    assert len(list(open_images("demo", CIFAR10, limit=5))) == 5


@pytest.mark.parametrize("batch_size", [1, 4, 7, 10, 11])
def test_batches_are_the_items_in_order(batch_size) -> None:
    images = open_images("demo", CIFAR10, limit=10)
    found = list(batches(images, batch_size))
    assert [len(labels) for _, labels in found[:-1]] == [batch_size] * (len(found) - 1)
    torch.testing.assert_close(torch.cat([batch for batch, _ in found]), torch.stack([x for x, _ in images]))
    assert torch.cat([labels for _, labels in found]).tolist() == [label for _, label in images]


def test_resizes_arrays() -> None:
    image, _ = open_images("demo", Preprocessing((48, 48), resize=56))[0]
    assert image.shape == (3, 48, 48)


def test_limit_takes_the_first_of_a_mixed_source() -> None:
    images, first = open_images("demo", CIFAR10), open_images("demo", CIFAR10, limit=3)
    assert [label for _, label in first] == [images.label(number) for number in range(3)]
    assert len(open_images("demo", CIFAR10, limit=10_000)) == 1000


def test_data_loader_with_a_worker(tmp_path, write_images, small) -> None:
    write_images(tmp_path / "a", 1, 2)
    write_images(tmp_path / "b", 3)
    loader = DataLoader(
        open_images(tmp_path, small), batch_size=2, num_workers=1, multiprocessing_context="spawn"
    )
    found = [(images[:, 0, 0, 0].tolist(), labels.tolist()) for images, labels in loader]
    assert found == [([1.0, 2.0], [0, 0]), ([3.0], [1])]


@pytest.mark.parametrize("count", [0, -1])
def test_refuses_counts_that_are_not_positive(count) -> None:
    with pytest.raises(UsageError, match="limit must be at least 1"):
        open_images("demo", CIFAR10, limit=count)
    with pytest.raises(UsageError, match="batch_size must be at least 1"):
        batches(open_images("demo", CIFAR10), count)


def test_unknown_split_names_those_there_are() -> None:
    with pytest.raises(UsageError, match="demo has no split 'val'; it has test, train"):
        open_images("demo", CIFAR10, split="val")


def test_missing_source(tmp_path) -> None:
    with pytest.raises(TuckertreeError, match="nowhere: no such file or folder"):
        open_images(tmp_path / "nowhere", CIFAR10)


def test_other_file(tmp_path) -> None:
    path = tmp_path / "images.zip"
    path.write_bytes(b"")
    with pytest.raises(TuckertreeError, match=r"images\.zip: not a parquet file"):
        open_images(path, CIFAR10)
