"""Accuracy on batches, and what cannot be measured."""

import pytest
import torch
from torch import nn

from tuckertree._base.errors import TuckertreeError
from tuckertree.measure import evaluate

LOGITS = torch.tensor([[9.0, 8, 7, 6, 5, 4], [4, 5, 6, 7, 8, 9], [-1, 0, 1, 2, 3, 4]])


def test_top1_and_top5_over_uneven_batches():
    # The first is right, the second among the first five, the third not.
    batches = [(LOGITS[:2], torch.tensor([0, 1])), (LOGITS[2:], torch.tensor([0]))]
    found = evaluate(nn.Identity(), batches)
    assert found.images == 3
    assert found.top1 == pytest.approx(100 / 3)
    assert found.top5 == pytest.approx(200 / 3)


def test_fewer_than_five_classes():
    found = evaluate(nn.Identity(), [(LOGITS[:, :3], torch.tensor([0, 2, 0]))])
    assert (found.top1, found.top5) == (pytest.approx(200 / 3), 100)


@pytest.mark.parametrize(
    ("batches", "message"),
    [
        ([], "no images"),
        ([(LOGITS, torch.tensor([0, 1, 6]))], "label 6 does not exist for a network of 6 classes"),
        ([(LOGITS, torch.tensor([-1, -1, -1]))], "have no labels"),
        ([(LOGITS[None], torch.tensor([0]))], r"accuracy needs logits \[batch, classes\]; .*\[1, 3, 6\]"),
    ],
)
def test_what_cannot_be_measured_is_refused(batches, message):
    with pytest.raises(TuckertreeError, match=message):
        evaluate(nn.Identity(), batches)


def test_images_that_the_model_cannot_take_are_described():
    with pytest.raises(TuckertreeError, match=r"does not run on images \[3, 6\] float32"):
        evaluate(nn.Linear(5, 2), [(LOGITS, torch.zeros(3, dtype=torch.int64))])


def test_the_mode_of_every_module_is_restored():
    model = nn.Sequential(nn.Dropout(), nn.Identity().eval())
    evaluate(model, [(LOGITS, torch.zeros(3, dtype=torch.int64))])
    assert [module.training for module in model.modules()] == [True, True, False]
