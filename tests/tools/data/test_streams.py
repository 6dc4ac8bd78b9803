"""Streams: every process reads shards of its own, in an order of the seed and the epoch."""

import pytest

from tests.tools.data.test_hub import rows
from tuckertree._base.errors import TuckertreeError, UsageError
from tuckertree.tools.data import Preprocessing, open_images, open_training
from tuckertree.tools.data.streams import ImageStream

datasets = pytest.importorskip("datasets")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True, raising=False)
    datasets.disable_progress_bars()


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "set"
    folder.mkdir()
    for shard in range(4):
        colours = [(10 * shard + i, 0, 0) for i in range(5)]
        rows(colours).to_parquet(folder / f"train-0000{shard}-of-00004.parquet")
    return folder


def seen(stream, seed=0, epoch=0, rank=0, world=1):
    return [int(stream.pixels(value)[0, 0, 0]) for value, _ in stream.encoded(seed, epoch, rank, world)]


EVERY = [10 * shard + i for shard in range(4) for i in range(5)]


@pytest.mark.parametrize("world", [2, 3])
def test_processes_see_different_images_that_together_are_all(folder, world):
    stream = open_training(f"hf:{folder}?streaming", Preprocessing((4, 4)))
    assert isinstance(stream, ImageStream)
    assert (len(stream), stream.classes, stream.labelled) == (20, ["cat", "dog"], True)
    shares = [seen(stream, epoch=1, rank=rank, world=world) for rank in range(world)]
    assert sorted(image for share in shares for image in share) == EVERY
    assert [stream.shards(rank, 2) for rank in range(2)] == [2, 2]


def test_the_order_is_that_of_seed_and_epoch(folder):
    stream = open_training(f"hf:{folder}?streaming", Preprocessing((4, 4)))
    again = open_training(f"hf:{folder}?streaming", Preprocessing((4, 4)))
    orders = [seen(stream, seed, epoch) for seed, epoch in ((0, 0), (0, 1), (1, 0))]
    assert all(sorted(order) == EVERY != order for order in orders)
    assert len({tuple(order) for order in orders}) == 3
    assert seen(again) == orders[0]


def test_the_label_is_that_of_the_image(folder):
    stream = open_training(f"hf:{folder}?streaming", Preprocessing((4, 4)))
    for value, label in stream.encoded(0, 0, 0, 1):
        assert label == int(stream.picture(value)[0, 0, 0]) % 10 % 2


def test_what_cannot_be_streamed(folder, tmp_path):
    with pytest.raises(UsageError, match="a stream is only to be trained on"):
        open_images(f"hf:{folder}?streaming", Preprocessing((4, 4)))
    with pytest.raises(TuckertreeError, match="cannot be opened"):
        open_training(f"hf:{tmp_path / 'nowhere'}?streaming", Preprocessing((4, 4)))
    (tmp_path / "texts").mkdir()
    datasets.Dataset.from_dict({"text": ["a"]}).to_parquet(tmp_path / "texts/train.parquet")
    with pytest.raises(TuckertreeError, match=r"texts \(train\): no image column; it has text"):
        open_training(f"hf:{tmp_path / 'texts'}?streaming", Preprocessing((4, 4)))
    rows([(0, 0, 0)]).remove_columns("label").to_parquet(tmp_path / "texts/train.parquet")
    with pytest.raises(TuckertreeError, match="no column of labels to train with; it has image"):
        open_training(f"hf:{tmp_path / 'texts'}?streaming", Preprocessing((4, 4)))
    (tmp_path / "files/train/cat").mkdir(parents=True)
    rows([(0, 0, 0)])[0]["image"].save(tmp_path / "files/train/cat/a.png")
    with pytest.raises(TuckertreeError, match=r"only parquet files can be streamed, and .*a\.png is none"):
        open_training(f"hf:{tmp_path / 'files'}?streaming", Preprocessing((4, 4)))


def test_an_image_that_cannot_be_read_is_named_by_its_place(folder):
    import pyarrow.parquet as parquet

    path = folder / "train-00002-of-00004.parquet"
    table = parquet.read_table(path)
    images = [{"bytes": b"spoilt", "path": None}, None, *table["image"].to_pylist()[2:]]
    spoilt = table.set_column(table.schema.get_field_index("image"), "image", [images])
    parquet.write_table(spoilt.cast(table.schema), path)
    stream = open_training(f"hf:{folder}?streaming", Preprocessing((4, 4)))
    complaints = []
    for value, _ in stream.encoded(0, 0, 0, 1):
        try:
            stream.pixels(value)
        except TuckertreeError as error:
            complaints.append(str(error))
    assert len(complaints) == 2
    assert any("train-00002-of-00004.parquet, row 0: " in complaint for complaint in complaints)
    assert any(complaint.endswith("row 1: a row holds no image bytes") for complaint in complaints)


def test_a_damaged_shard_is_named(folder):
    stream = open_training(f"hf:{folder}?streaming", Preprocessing((4, 4)))
    shard = folder / "train-00002-of-00004.parquet"
    shard.write_bytes(shard.read_bytes()[:-100])
    with pytest.raises(TuckertreeError, match=r"train-00002-of-00004\.parquet: cannot be read: "):
        seen(stream)


def test_a_buffer_smaller_than_the_shards_loses_no_image(folder):
    shards = sorted(map(str, folder.glob("*.parquet")))
    stream = ImageStream(shards, "set", Preprocessing((4, 4)), buffer=3)
    assert len(stream) == 20
    order = seen(stream)
    assert sorted(order) == EVERY != order
