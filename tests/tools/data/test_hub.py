"""Data sets read by the package datasets; those in the tests lie in a folder, nothing is fetched."""

import io

import pytest
import torch

from tuckertree._base.errors import TuckertreeError, UsageError
from tuckertree.tools.data import Preprocessing, open_images

datasets = pytest.importorskip("datasets")
pillow = pytest.importorskip("PIL.Image")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True, raising=False)
    datasets.disable_progress_bars()


def rows(colours):
    def encoded(colour):
        content = io.BytesIO()
        pillow.new("RGB", (4, 4), colour).save(content, "PNG")
        return {"bytes": content.getvalue(), "path": None}

    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])}
    )
    columns = {
        "image": [encoded(colour) for colour in colours],
        "label": [i % 2 for i in range(len(colours))],
    }
    return datasets.Dataset.from_dict(columns, features=features)


def test_the_splits_of_a_data_set(tmp_path):
    folder = tmp_path / "set"
    folder.mkdir()
    rows([(1, 2, 3), (4, 5, 6), (7, 8, 9)]).to_parquet(folder / "train-00000-of-00001.parquet")
    rows([(9, 9, 9)]).to_parquet(folder / "test-00000-of-00001.parquet")
    images = open_images(f"hf:{folder}", Preprocessing((4, 4)), split="train")
    assert (len(images), images.classes, images.labelled) == (3, ["cat", "dog"], True)
    assert [images.label(i) for i in range(3)] == [0, 1, 0]
    assert torch.equal(
        images.pixels(1), torch.tensor([4, 5, 6], dtype=torch.uint8)[:, None, None].expand(3, 4, 4)
    )
    assert len(open_images(f"hf:{folder}", Preprocessing((4, 4)))) == 1
    with pytest.raises(UsageError, match="has no split 'val'; it has test, train"):
        open_images(f"hf:{folder}", Preprocessing((4, 4)), split="val")


def test_what_is_no_data_set_of_images(tmp_path):
    with pytest.raises(TuckertreeError, match="cannot be opened"):
        open_images(f"hf:{tmp_path / 'nowhere'}", Preprocessing((4, 4)))
    (tmp_path / "texts").mkdir()
    datasets.Dataset.from_dict({"text": ["a"]}).to_parquet(tmp_path / "texts/test.parquet")
    with pytest.raises(TuckertreeError, match="no image column; it has text"):
        open_images(f"hf:{tmp_path / 'texts'}", Preprocessing((4, 4)))
