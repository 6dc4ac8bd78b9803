"""Values within containers within each other."""

from collections import OrderedDict, UserDict, namedtuple
from dataclasses import dataclass
from types import MappingProxyType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tuckertree.measure import run
from tuckertree.measure.nested import each_leaf, leaves, tensors

Pair = namedtuple("Pair", "one two")


@dataclass(frozen=True)
class Found:
    boxes: Tensor
    more: Any = None


X, Y = torch.ones(2), torch.zeros(3)
NESTED = [
    X,
    [X, Y],
    (X, [Y, "word", 3]),
    {"a": X, "b": {"c": (Y,)}},
    OrderedDict(a=[X], b=Y),
    UserDict(a=X, b=Y),
    MappingProxyType({"a": X}),
    Pair(X, Pair(Y, None)),
    Found(X, [Found(Y)]),
    SimpleNamespace(x=X, y=[Y]),
]


@pytest.mark.parametrize("value", NESTED, ids=lambda value: type(value).__name__)
def test_every_leaf_is_found_and_changed_in_a_copy_of_the_same_form(value):
    doubled = each_leaf(value, lambda leaf: 2 * leaf if isinstance(leaf, Tensor) else leaf)
    assert isinstance(value, MappingProxyType) or type(doubled) is type(value)
    assert [2 * x.sum() for x in tensors(value)] == [x.sum() for x in tensors(doubled)]
    assert [x for x in leaves(value) if not isinstance(x, Tensor)] == [
        x for x in leaves(doubled) if not isinstance(x, Tensor)
    ]
    assert torch.equal(X, torch.ones(2))


class ChangesAll(nn.Module):
    def forward(self, *args: Any, **kwargs: Any) -> None:
        for x in tensors([args, kwargs]):
            x.fill_(9)


@pytest.mark.parametrize("value", NESTED, ids=lambda value: type(value).__name__)
def test_a_model_that_changes_its_inputs_changes_copies(value):
    for inputs in ((value,), {"x": value}):
        run(ChangesAll(), inputs)
    assert torch.equal(X, torch.ones(2))
    assert torch.equal(Y, torch.zeros(3))
