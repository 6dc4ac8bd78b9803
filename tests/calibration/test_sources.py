"""The forms that calibration images come in."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

import tuckertree as tt
from tuckertree._base.errors import TuckertreeError
from tuckertree.calibration import Calibration, CalibrationWarning
from tuckertree.calibration.batches import Samples, batch_size
from tuckertree.measure.nested import tensors

IMAGES = torch.arange(24 * 3 * 4 * 4, dtype=torch.float32).reshape(24, 3, 4, 4)
FLOATS, INTEGERS = torch.rand(24), torch.arange(24)
EXAMPLE = IMAGES[:1]


class Items(Dataset[Any]):
    def __init__(self, items: list[Any]) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, number: int) -> Any:
        if isinstance(self.items[number], Exception):
            raise self.items[number]
        return self.items[number]


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Any:
        return iter(zip(IMAGES, FLOATS, strict=True))


def of_one_input() -> dict[str, Any]:
    return {
        "tensor": IMAGES,
        "array": IMAGES.numpy(),
        "single images": list(IMAGES),
        "single arrays": list(IMAGES.numpy()),
        "batches with float labels": DataLoader(TensorDataset(IMAGES, FLOATS), batch_size=7),
        "data set with float labels": TensorDataset(IMAGES, FLOATS),
        "data set with masks": TensorDataset(IMAGES, IMAGES[:, 0]),
        "data set with pictures for labels": TensorDataset(IMAGES, IMAGES),
        "data set with several labels": TensorDataset(IMAGES, FLOATS, INTEGERS),
        "items with labels": list(zip(IMAGES, FLOATS.tolist(), strict=True)),
        "items with words": [(image, "cat") for image in IMAGES],
        "arrays with labels": [(IMAGES[:10].numpy(), np.zeros(10)), (IMAGES[10:].numpy(), np.zeros(14))],
        "lists of images": [list(IMAGES[:10]), list(IMAGES[10:])],
        "collated by zip": [(tuple(IMAGES[:10]), ({},) * 10), (tuple(IMAGES[10:]), ({},) * 14)],
        "in a tuple": [(IMAGES[:10],), (IMAGES[10:],)],
        "a stream": Stream(),
    }


@pytest.mark.parametrize("source", of_one_input().values(), ids=of_one_input())
def test_of_a_model_of_one_tensor_the_images_are_taken_and_nothing_else(source):
    found = list(Calibration(source, batch_size=8, example=EXAMPLE))
    assert all(isinstance(inputs, Tensor) and len(inputs) <= 8 for inputs in found)
    assert torch.equal(torch.cat(found), IMAGES)
    assert len(Calibration(source, example=EXAMPLE)) == 24
    assert len(found) <= 4


@pytest.mark.parametrize(
    "source",
    [
        [(IMAGES, FLOATS)],
        [(IMAGES, FLOATS, INTEGERS)],
        [((IMAGES, FLOATS), INTEGERS)],
        [[IMAGES.numpy(), FLOATS.numpy()]],
        TensorDataset(IMAGES, FLOATS, INTEGERS),
    ],
)
def test_of_a_model_of_two_tensors_both_are_taken(source):
    found = list(Calibration(source, batch_size=8, example=(EXAMPLE, FLOATS[:1])))
    assert [len(inputs) for inputs in found] == [2, 2, 2]
    assert torch.equal(torch.cat([x for x, _ in found]), IMAGES)
    assert torch.equal(torch.cat([y for _, y in found]), FLOATS)


@dataclass
class Batch:
    image: Tensor
    scale: float = 2.0


@pytest.mark.parametrize(
    ("source", "example"),
    [
        ([((IMAGES, FLOATS),)], ((EXAMPLE, FLOATS[:1]),)),
        ([((IMAGES, FLOATS), INTEGERS)], ((EXAMPLE, FLOATS[:1]),)),
        ([({"a": IMAGES, "b": {"c": FLOATS}},)], ({"a": EXAMPLE, "b": {"c": FLOATS[:1]}},)),
        ([{"x": IMAGES.numpy(), "labels": INTEGERS}], {"x": EXAMPLE}),
        ([({"x": IMAGES}, INTEGERS)], {"x": EXAMPLE}),
        ([{"y": INTEGERS[i], "x": image} for i, image in enumerate(IMAGES)], {"x": EXAMPLE}),
        ([(Batch(IMAGES),)], (Batch(EXAMPLE),)),
        ([Batch(IMAGES)], (Batch(EXAMPLE),)),
        ([(list(IMAGES),)], ([EXAMPLE[0]],)),
        ([(list(IMAGES), [{}] * 24)], ([EXAMPLE[0]],)),
        ([list(IMAGES)], ([EXAMPLE[0]],)),
        (IMAGES, ([EXAMPLE[0]],)),
        (TensorDataset(IMAGES, INTEGERS), ([EXAMPLE[0]],)),
        ([{"x": IMAGES, "labels": INTEGERS}], ({"x": EXAMPLE},)),
        ([{"x": image, "label": 3} for image in IMAGES], ({"x": EXAMPLE},)),
        ([[{"x": image} for image in IMAGES]], ([{"x": EXAMPLE[0]}],)),
    ],
)
def test_inputs_in_containers_are_cut_along_the_images(source, example):
    found = list(Calibration(source, batch_size=8, example=example))
    assert [batch_size(inputs) for inputs in found] == [8, 8, 8]
    assert [type(inputs) for inputs in found] == [type(example)] * 3
    first = [tensors(inputs) for inputs in found]
    listed = any(isinstance(part, Samples) for inputs in found for part in inputs)
    images = [torch.stack(batch) if listed else batch[0] for batch in first]
    assert torch.equal(torch.cat(images), IMAGES)


TALL = torch.zeros(3, 9, 4)


@pytest.mark.parametrize(
    "source",
    [
        [[IMAGES[0], TALL]],
        [IMAGES[0], TALL],
        Items([IMAGES[0], TALL]),
        Items([(IMAGES[0], {"boxes": FLOATS[:1]}), (TALL, {"boxes": FLOATS[:2]})]),
        [((IMAGES[0], TALL), ({}, {}))],
    ],
)
def test_images_of_several_sizes_are_listed_for_a_model_that_takes_lists(source):
    found = [image for (images,) in Calibration(source, example=([TALL],)) for image in images]
    assert [image.shape for image in found] == [IMAGES[0].shape, TALL.shape]


def test_a_single_image_is_a_source():
    images = Calibration(IMAGES[0], example=EXAMPLE)
    assert len(images) == len(list(images)) == 1
    assert next(iter(images)).shape == EXAMPLE.shape


@pytest.mark.parametrize(
    ("source", "example", "message"),
    [
        (["cat.png"], EXAMPLE, r"a calibration batch is a tensor or an array .* not str$"),
        ([("cat.png", 1)], EXAMPLE, "not tuple of str"),
        ([{"y": IMAGES}], {"x": EXAMPLE}, "holds y; the model takes x"),
        ([{"y": IMAGES}], ({"x": EXAMPLE},), "holds y; the model takes x"),
        ((IMAGES, INTEGERS), EXAMPLE, r"batch is \[24\] int64, the example input is \[1, 3, 4, 4\] float32$"),
        ([np.array(["a", "b"])], EXAMPLE, "array of <U1 is of no type that torch has"),
        (
            [(IMAGES, FLOATS[:3])],
            (EXAMPLE, FLOATS[:1]),
            "must share their first size, the images; they are 24, 3",
        ),
        ([[IMAGES[0], IMAGES[0, :, :2]]], EXAMPLE, r"must be of one size, not \[3, 2, 4\] and \[3, 4, 4\]"),
        (Items([IMAGES[0], IMAGES[0, :, :2]]), EXAMPLE, r"of one size, not \[3, 2, 4\] and \[3, 4, 4\]"),
        (
            Items([OSError("no such file")] * 3),
            EXAMPLE,
            "3 of 3 calibration images cannot be read: no such file",
        ),
        (Items([IMAGES[0]] * 8 + [OSError("cut off")] * 2), EXAMPLE, "2 of 10 .*: cut off; at most 10%"),
        (DataLoader(Items([OSError("x\ny")])), EXAMPLE, "^the calibration source fails: x$"),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_line(source, example, message):
    with pytest.raises(TuckertreeError, match=message) as caught:
        list(Calibration(source, example=example))
    assert "\n" not in str(caught.value)


def test_a_few_images_that_cannot_be_read_are_left_out_and_counted_once():
    images = Calibration(Items([*IMAGES[:9], OSError("cut off"), *IMAGES[9:18]]), batch_size=4)
    with pytest.warns(
        CalibrationWarning, match="1 of 19 calibration images cannot be read: cut off; left out"
    ):
        found = torch.cat(list(images))
    assert torch.equal(found, IMAGES[:18])
    assert len(images) == 18
    assert torch.equal(torch.cat(list(images)), found)


class TakesPair(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 32, 3, padding=1), nn.Conv2d(32, 32, 3)

    def forward(self, pair: tuple[Tensor, Tensor]) -> dict[str, Batch]:
        x, y = pair
        return {"found": Batch(self.b(self.a(x / 1e3).relu()) * y[:, None, None, None])}


@pytest.mark.filterwarnings("ignore:fewer calibration patches")
@pytest.mark.parametrize("objective", ["outputs", "sensitivity", "moments"])
def test_a_model_of_nested_inputs_and_outputs_is_calibrated(objective):
    torch.manual_seed(0)
    model = TakesPair().eval()
    source, example = [((IMAGES, FLOATS),)], ((EXAMPLE, FLOATS[:1]),)
    result = tt.compress(model, example, tt.Budget(0.5), calibration=source, objective=objective)
    assert result.plan.changes
