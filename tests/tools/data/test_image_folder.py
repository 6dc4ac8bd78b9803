import pytest

from tuckertree._base.errors import TuckertreeError, UsageError
from tuckertree.tools.data import Preprocessing, open_images


def contents(images) -> list[tuple[int, int]]:
    return [(int(image[0, 0, 0]), label) for image, label in images]


def test_class_folders_are_numbered_by_name(tmp_path, write_images, small) -> None:
    write_images(tmp_path / "dog", 30, 10)
    write_images(tmp_path / "cat", 20)
    (tmp_path / "dog" / "notes.txt").write_text("not an image")
    (tmp_path / ".cache").mkdir()
    images = open_images(tmp_path, small)
    assert contents(images) == [(20, 0), (10, 1), (30, 1)]
    assert images.classes == ["cat", "dog"]
    assert images.labelled


@pytest.mark.parametrize(
    ("split", "value"), [(None, 5), ("test", 5), ("val", 3), ("valid", 3), ("validation", 3), ("train", 1)]
)
def test_split_folders(tmp_path, write_images, small, split, value) -> None:
    write_images(tmp_path / "train" / "cat", 1)
    write_images(tmp_path / "val" / "cat", 3)
    write_images(tmp_path / "test" / "cat", 5)
    assert contents(open_images(tmp_path, small, split=split)) == [(value, 0)]


def test_labels_agree_between_splits(tmp_path, write_images, small) -> None:
    write_images(tmp_path / "train" / "cat", 1)
    write_images(tmp_path / "train" / "dog", 2)
    write_images(tmp_path / "val" / "dog", 3)
    images = open_images(tmp_path, small)
    assert contents(images) == [(3, 1)]
    assert images.classes == ["cat", "dog"]


def test_unlabelled_split(tmp_path, write_images, small) -> None:
    write_images(tmp_path / "train" / "cat", 1)
    write_images(tmp_path / "test", 9)
    assert contents(open_images(tmp_path, small)) == [(9, -1)]


def test_flat_folder_has_no_labels(tmp_path, write_images, small) -> None:
    write_images(tmp_path, 2, 1)
    images = open_images(tmp_path, small)
    assert contents(images) == [(1, -1), (2, -1)]
    assert not images.labelled
    assert images.classes is None


def test_limit_is_spread_over_the_classes(tmp_path, write_images, small) -> None:
    for number, name in enumerate("abcd"):
        write_images(tmp_path / name, *range(10 * number, 10 * number + 6))
    labels = [label for _, label in open_images(tmp_path, small, limit=8)]
    assert labels == [0, 0, 1, 1, 2, 2, 3, 3]


def test_unknown_split(tmp_path, write_images, small) -> None:
    write_images(tmp_path / "train" / "cat", 1)
    with pytest.raises(UsageError, match="has no split 'test'; it has train"):
        open_images(tmp_path, small, split="test")


def test_split_of_an_undivided_folder(tmp_path, write_images, small) -> None:
    write_images(tmp_path / "cat", 1)
    with pytest.raises(UsageError, match="is not divided into splits; leave out the split 'test'"):
        open_images(tmp_path, small, split="test")


@pytest.mark.parametrize("folders", [(), ("cat", "dog"), ("train/cat",)])
def test_no_images(tmp_path, small, folders) -> None:
    for folder in folders:
        (tmp_path / folder).mkdir(parents=True)
    with pytest.raises(TuckertreeError, match="no images in it"):
        open_images(tmp_path, small)


@pytest.mark.parametrize("damage", [lambda data: data[: len(data) // 2], lambda _: b"text", lambda _: b""])
def test_damaged_image_is_named(tmp_path, write_images, small, damage) -> None:
    write_images(tmp_path, 1, 2)
    path = tmp_path / "002.png"
    path.write_bytes(damage(path.read_bytes()))
    images = open_images(tmp_path, small)
    assert images[0][1] == -1
    with pytest.raises(TuckertreeError, match=r"002\.png: damaged image \(.*\); replace it"):
        images[1]


def test_vanished_image_is_named(tmp_path, write_images, small) -> None:
    write_images(tmp_path, 1)
    images = open_images(tmp_path, small)
    (tmp_path / "001.png").unlink()
    with pytest.raises(TuckertreeError, match=r"001\.png: cannot be read"):
        images[0]


def test_wrong_size_is_named(tmp_path, write_images) -> None:
    write_images(tmp_path, 1)
    with pytest.raises(TuckertreeError, match=r"001\.png: the image is 8x8 and must be 9x9"):
        open_images(tmp_path, Preprocessing((9, 9)))[0]
