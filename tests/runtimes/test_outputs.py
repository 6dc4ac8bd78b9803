"""What a model returns, and what it does to its inputs, is the model's affair."""

from dataclasses import dataclass

import pytest
import torch
from torch import nn

from tuckertree._base.errors import TuckertreeError
from tuckertree.runtimes import get_runtime
from tuckertree.runtimes.runtime import reference_outputs, tensors_of


@dataclass
class Found:
    boxes: torch.Tensor
    masks: list
    loss: torch.Tensor | None = None


def test_tensors_are_found_in_any_nesting_in_their_order():
    a, b, c = (torch.full((2,), float(i)) for i in range(3))
    found = tensors_of({"first": a, "then": [Found(b, [(c,)])]})
    assert [float(x[0]) for x in found] == [0.0, 1.0, 2.0]
    with pytest.raises(TuckertreeError, match="returns a str where a tensor is needed"):
        tensors_of((a, "text"))


def test_a_model_that_changes_its_inputs_does_not_change_the_callers():
    class InPlace(nn.Module):
        def forward(self, x):
            return Found(x.sub_(1), [x.mul_(2)])

    x = torch.ones(2, 3)
    assert len(reference_outputs(InPlace(), [x])) == 2
    get_runtime("torch", threads=1).load(InPlace(), [x]).run([x])
    assert torch.equal(x, torch.ones(2, 3))
