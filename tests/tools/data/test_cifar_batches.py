import hashlib
import pickle

import numpy as np
import pytest
import torch
from torchvision.datasets import CIFAR10

from tuckertree._base.errors import TuckertreeError
from tuckertree.tools.data import Preprocessing, open_images

BYTES = Preprocessing((32, 32), mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), scale=1.0)
CLASSES = [f"class{number}" for number in range(10)]
TRAIN = [f"data_batch_{number}" for number in range(1, 6)]


def batch(seed: int) -> tuple[np.ndarray, list[int]]:
    generator = np.random.default_rng(seed)
    pixels = generator.integers(0, 256, (4, 3072), dtype=np.uint8)
    return pixels, generator.integers(0, 10, 4).tolist()


@pytest.fixture
def binary(tmp_path):
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    for seed, name in enumerate([*TRAIN, "test_batch"]):
        pixels, labels = batch(seed)
        (folder / f"{name}.bin").write_bytes(np.column_stack([np.uint8(labels), pixels]).tobytes())
    (folder / "batches.meta.txt").write_text("\n".join(CLASSES) + "\n\n")
    return folder


@pytest.fixture
def python(tmp_path, monkeypatch):
    """A small folder of pickles, with torchvision's list of md5 sums changed to theirs."""
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()

    def write(name: str, content: object) -> str:
        # As in the official files, the dtype says align=0 and not align=False, of which numpy warns.
        data = pickle.dumps(content, protocol=2).replace(b"\x89\x88\x87", b"K\x00K\x01\x87")
        (folder / name).write_bytes(data)
        return hashlib.md5(data).hexdigest()

    sums = []
    for seed, name in enumerate([*TRAIN, "test_batch"]):
        pixels, labels = batch(seed)
        sums.append([name, write(name, {"data": pixels, "labels": labels})])
    meta = {"filename": "batches.meta", "key": "label_names"}
    meta["md5"] = write("batches.meta", {"label_names": CLASSES})
    monkeypatch.setattr(CIFAR10, "train_list", sums[:5])
    monkeypatch.setattr(CIFAR10, "test_list", sums[5:])
    monkeypatch.setattr(CIFAR10, "meta", meta)
    return folder


@pytest.mark.parametrize("form", ["binary", "python"])
@pytest.mark.parametrize("inside", [True, False])
@pytest.mark.parametrize(("split", "seeds"), [("train", range(5)), ("test", [5]), (None, [5])])
def test_reads_both_forms(request, form, inside, split, seeds) -> None:
    folder = request.getfixturevalue(form)
    images = open_images(folder if inside else folder.parent, BYTES, split=split)
    expected = [batch(seed) for seed in seeds]
    pixels = np.concatenate([pixels for pixels, _ in expected]).reshape(-1, 3, 32, 32)
    assert torch.equal(
        torch.stack([images.pixels(number) for number in range(len(images))]), torch.tensor(pixels)
    )
    assert [label for _, label in images] == [label for _, labels in expected for label in labels]
    assert images.classes == CLASSES


def test_pickle_that_is_not_the_official_one_is_not_read(python) -> None:
    class Bomb:
        def __reduce__(self):
            return pytest.fail, ("it was unpickled",)

    (python / "test_batch").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(TuckertreeError, match="is missing or is not the official one"):
        open_images(python, BYTES)


def test_missing_pickle(python) -> None:
    (python / "data_batch_3").unlink()
    with pytest.raises(TuckertreeError, match="is missing or is not the official one"):
        open_images(python, BYTES)


@pytest.mark.parametrize("keep", [0, 100, 3074])
def test_truncated_binary(binary, keep) -> None:
    path = binary / "test_batch.bin"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(TuckertreeError, match=rf"test_batch\.bin: truncated \({keep} bytes"):
        open_images(binary, BYTES)


def test_missing_binary(binary) -> None:
    (binary / "data_batch_3.bin").unlink()
    with pytest.raises(TuckertreeError, match=r"data_batch_3\.bin: cannot be read \(No such file"):
        open_images(binary, BYTES, split="train")


def test_label_out_of_range(binary) -> None:
    path = binary / "test_batch.bin"
    content = bytearray(path.read_bytes())
    content[2 * 3073] = 77
    path.write_bytes(content)
    with pytest.raises(TuckertreeError, match=r"test_batch\.bin, record 2: the label 77 is not 0\.\.9"):
        open_images(binary, BYTES)
