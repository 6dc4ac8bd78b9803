import json
import pickle

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tuckertree._base.errors import TuckertreeError, UsageError
from tuckertree.tools.data import open_images
from tuckertree.tools.data import parquet as module

CLASSES = ["cat", "dog"]


@pytest.fixture
def write(encode):
    """Write a parquet file of images of one value each."""

    def write(path, values, labels=None, *, image="img", label="label", group=2) -> None:
        columns = {image: [{"bytes": encode(v) if isinstance(v, int) else v, "path": None} for v in values]}
        kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        fields = [(image, kind)]
        if labels is not None:
            columns[label] = labels
            fields.append((label, pa.float64() if isinstance(labels[0], float) else pa.int64()))
        features = {label: {"names": CLASSES, "_type": "ClassLabel"}}
        metadata = {"huggingface": json.dumps({"info": {"features": features}})}
        path.parent.mkdir(parents=True, exist_ok=True)
        table = pa.table(columns, schema=pa.schema(fields, metadata=metadata))
        pq.write_table(table, path, row_group_size=group)

    return write


def contents(images) -> list[tuple[int, int]]:
    return [(int(image[0, 0, 0]), label) for image, label in images]


@pytest.mark.parametrize("image", ["img", "image"])
@pytest.mark.parametrize("label", ["label", "labels", "fine_label"])
def test_file(tmp_path, write, small, image, label) -> None:
    write(tmp_path / "my.parquet", [5, 6, 7], [1, 0, 1], image=image, label=label)
    images = open_images(tmp_path / "my.parquet", small)
    assert contents(images) == [(5, 1), (6, 0), (7, 1)]
    assert images.classes == CLASSES


@pytest.mark.parametrize("labels", [None, [-1, -1]])
def test_without_labels(tmp_path, write, small, labels) -> None:
    write(tmp_path / "my.parquet", [5, 6], labels)
    images = open_images(tmp_path / "my.parquet", small)
    assert contents(images) == [(5, -1), (6, -1)]
    assert not images.labelled


@pytest.mark.parametrize("inside", ["", "data"])
@pytest.mark.parametrize(("split", "values"), [(None, [9]), ("val", [9]), ("train", [1, 2, 3])])
def test_folder_of_splits(tmp_path, write, small, inside, split, values) -> None:
    write(tmp_path / inside / "train-00000-of-00002.parquet", [1, 2], [0, 1])
    write(tmp_path / inside / "train-00001-of-00002.parquet", [3], [0])
    write(tmp_path / inside / "validation-00000-of-00001.parquet", [9], [1])
    assert [value for value, _ in contents(open_images(tmp_path, small, split=split))] == values


def test_file_named_after_its_split(tmp_path, write, small) -> None:
    path = tmp_path / "test-00000-of-00007.parquet"
    write(path, [5], [0])
    assert len(open_images(path, small, split="test")) == 1
    with pytest.raises(UsageError, match="has no split 'train'; it has test"):
        open_images(path, small, split="train")


def test_splits_of_other_names_must_be_chosen(tmp_path, write, small) -> None:
    write(tmp_path / "night.parquet", [1], [0])
    write(tmp_path / "day.parquet", [2], [0])
    with pytest.raises(UsageError, match="has the splits day, night; choose one"):
        open_images(tmp_path, small)
    assert contents(open_images(tmp_path, small, split="night")) == [(1, 0)]


def test_limit_takes_the_first_rows_unless_sorted_by_class(tmp_path, write, small) -> None:
    write(tmp_path / "mixed.parquet", [1, 2, 3, 4], [1, 0, 1, 0])
    write(tmp_path / "sorted.parquet", [1, 2, 3, 4], [0, 0, 1, 1])
    assert contents(open_images(tmp_path / "mixed.parquet", small, limit=2)) == [(1, 1), (2, 0)]
    assert contents(open_images(tmp_path / "sorted.parquet", small, limit=2)) == [(1, 0), (3, 1)]


def test_any_order_of_access_with_a_small_cache(tmp_path, write, small, monkeypatch) -> None:
    monkeypatch.setattr(module, "CACHE_BYTES", 1)
    write(tmp_path / "my.parquet", range(7), [0] * 7)
    images = open_images(tmp_path / "my.parquet", small)
    assert [int(images[number][0][0, 0, 0]) for number in (6, 0, 3, 0, 5)] == [6, 0, 3, 0, 5]


def test_survives_pickling_for_a_spawned_worker(tmp_path, write, small) -> None:
    write(tmp_path / "my.parquet", [5, 6], [0, 1])
    images = open_images(tmp_path / "my.parquet", small)
    before = contents(images)
    sent = pickle.dumps(images)
    assert contents(pickle.loads(sent)) == before
    assert b"PNG" not in sent


def test_missing_image_column(tmp_path, small) -> None:
    pq.write_table(pa.table({"picture": [1], "label": [0]}), tmp_path / "my.parquet")
    with pytest.raises(TuckertreeError, match=r"my\.parquet: no image column; it has picture, label"):
        open_images(tmp_path / "my.parquet", small)


def test_image_column_of_another_type(tmp_path, small) -> None:
    pq.write_table(pa.table({"img": ["cat.png"]}), tmp_path / "my.parquet")
    with pytest.raises(TuckertreeError, match="column 'img' is string; it must be a struct"):
        open_images(tmp_path / "my.parquet", small)


def test_labels_that_are_not_integers(tmp_path, write, small) -> None:
    write(tmp_path / "my.parquet", [5], [0.5])
    with pytest.raises(TuckertreeError, match="column 'label' is double; labels must be integers"):
        open_images(tmp_path / "my.parquet", small)


def test_missing_label_names_the_row(tmp_path, write, small) -> None:
    write(tmp_path / "my.parquet", [5, 6], [0, None])
    with pytest.raises(TuckertreeError, match=r"my\.parquet, row 1: has no label"):
        open_images(tmp_path / "my.parquet", small)


@pytest.mark.parametrize(
    ("damaged", "message"),
    [
        (b"text", r"damaged image \(not an image\)"),
        # Pillow would start Ghostscript on it.
        (
            b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n",
            r"damaged image \(not an image\)",
        ),
        (None, "holds no image bytes"),
    ],
)
def test_damaged_image_names_file_and_row(tmp_path, write, small, damaged, message) -> None:
    write(tmp_path / "train-00000-of-00002.parquet", [1, 2], [0, 1])
    write(tmp_path / "train-00001-of-00002.parquet", [3, 4, damaged], [0, 1, 0])
    images = open_images(tmp_path, small)
    assert contents(images[number] for number in range(4)) == [(1, 0), (2, 1), (3, 0), (4, 1)]
    with pytest.raises(TuckertreeError, match=rf"train-00001-of-00002\.parquet, row 2: {message}"):
        images[4]


@pytest.mark.parametrize("keep", [0, 3, 200])
def test_truncated_file(tmp_path, write, small, keep) -> None:
    path = tmp_path / "my.parquet"
    write(path, [5, 6], [0, 1])
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(TuckertreeError, match=r"my\.parquet: not a whole parquet file") as caught:
        open_images(path, small)
    assert "\n" not in str(caught.value)


def test_damaged_page_names_the_row(tmp_path, write, small) -> None:
    path = tmp_path / "my.parquet"
    write(path, [5, 6], [0, 1])
    content = bytearray(path.read_bytes())
    content[4:60] = bytes(56)
    path.write_bytes(content)
    with pytest.raises(TuckertreeError, match=r"my\.parquet, row 0: cannot be read"):
        open_images(path, small)[0]


def test_empty_file(tmp_path, small) -> None:
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    pq.write_table(pa.table({"img": pa.array([], kind)}), tmp_path / "my.parquet")
    with pytest.raises(TuckertreeError, match="no images in it"):
        open_images(tmp_path / "my.parquet", small)


def test_missing_shard(tmp_path, write, small) -> None:
    write(tmp_path / "train-00000-of-00003.parquet", [1], [0])
    with pytest.raises(TuckertreeError, match="only 1 of the 3 files of split 'train'"):
        open_images(tmp_path, small)
