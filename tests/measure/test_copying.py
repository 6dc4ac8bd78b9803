"""A model is copied whole, or what hinders it is named by the way that leads to it."""

import io
import socket
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import tuckertree as tt
from tuckertree._base.errors import TuckertreeError
from tuckertree.measure import copy_for_inference, copy_model

IMAGE = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


@dataclass
class Record:
    held: Any = None
    other: dict[str, int] = field(default_factory=dict)


class Refusing(nn.Module):
    def __deepcopy__(self, memo):
        raise NotImplementedError("this one is not\nto be copied")


class Net(nn.Module):
    def __init__(self, **held):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 32, 3), nn.ReLU(), nn.Conv2d(32, 32, 3))
        for name, value in held.items():
            setattr(self, name, value)

    def forward(self, x):
        return self.body(x)


UNCOPYABLE = {
    "lock": lambda stack: (threading.Lock(), "lock"),
    "generator": lambda stack: ((number for number in range(3)), "generator"),
    "file": lambda stack: (stack(Path(__file__).open()), "TextIOWrapper"),  # noqa: SIM115
    "socket": lambda stack: (stack(socket.socket()), "socket"),
    "thread local": lambda stack: (threading.local(), "_local"),
    "python module": lambda stack: (io, "module"),
}
PLACES = {
    "thing": lambda value: Net(thing=value),
    "thing[1]": lambda value: Net(thing=[0, value]),
    "thing['a'][0].held": lambda value: Net(thing={"b": 1, "a": (Record(value),)}),
    "body.2.thing": lambda value: deep(value),
}


def deep(value):
    model = Net()
    model.body[2].register_forward_hook(lambda module, args, output: None)
    model.body[2].thing = value
    return model


@pytest.fixture
def stack():
    opened = []
    yield lambda thing: opened.append(thing) or thing
    for thing in opened:
        thing.close()


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("kind", UNCOPYABLE)
def test_what_cannot_be_copied_is_named_with_the_way_to_it(kind, place, stack):
    value, name = UNCOPYABLE[kind](stack)
    model = PLACES[place](value).eval()
    before = dict(vars(model))
    with pytest.raises(TuckertreeError) as caught:
        tt.compress(model, IMAGE, energy=0.5)
    assert str(caught.value).startswith(f"the model cannot be copied: {place} is a {name} (")
    assert "take it off the model" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert vars(model) == before


def test_a_module_that_refuses_to_be_copied_is_named():
    with pytest.raises(
        TuckertreeError, match=r"^the model cannot be copied: head is a Refusing \(this one is not\);"
    ):
        copy_model(Net(head=Refusing()))
    with pytest.raises(TuckertreeError, match=r"^the model cannot be copied: it is a Refusing \("):
        copy_model(Refusing())


def result():
    return nn.Parameter(torch.ones(3)) * 2


HELD = {
    "attribute": lambda: Net(kept=result()),
    "mapping": lambda: Net(kept={"loss": {"sparsity": result()}}),
    "list": lambda: Net(kept=[(result(), 1)]),
    "object": lambda: Net(kept=Record(result())),
    "parameterless": lambda: Net(kept=nn.ParameterDict(), more=[result()]),
}


@pytest.mark.parametrize("kind", HELD)
def test_results_that_a_model_keeps_are_copied_without_their_graph(kind):
    model = HELD[kind]().eval()
    compressed = tt.compress(model, IMAGE, energy=0.5).model
    assert compressed(IMAGE).shape == model(IMAGE).shape


def test_a_result_kept_twice_is_one_in_the_copy_with_its_value():
    kept = result()
    twin = copy_model(Net(one=kept, two=[kept]))
    assert twin.one is twin.two[0]
    assert torch.equal(twin.one, kept)
    assert twin.one.grad_fn is None
    assert kept.grad_fn is not None


def test_functions_and_generators_of_random_numbers_are_no_hindrance():
    model = Net(act=lambda x: x, generator=torch.Generator().manual_seed(3))
    assert copy_model(model).generator.initial_seed() == 3


def test_replaced_modules_stand_wherever_the_old_ones_did_and_are_not_copied():
    model, other = Net(), nn.Conv2d(3, 32, 3)
    model.again = model.body[0]
    twin = copy_model(model, {model.body[0]: other})
    assert twin.body[0] is twin.again is other
    assert copy_model(model.body[0], {model.body[0]: other}) is other


def test_tensors_that_share_memory_share_it_in_the_copy():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(3, 8, 3), nn.LSTM(4, 4), nn.Linear(2, 2))
    model[1].weight = nn.Parameter(model[0].weight.detach())
    model[0].seen = [model[0].weight.detach()[2:, 1]]
    flat = torch.arange(12.0)  # parameters that lie side by side in one file have nothing in common
    model[3].weight = nn.Parameter(flat[:4].view(2, 2))
    model[3].bias = nn.Parameter(flat[4:6])
    twin = copy_model(model)
    assert all(map(torch.equal, model.parameters(), twin.parameters()))
    with torch.no_grad():
        twin[0].weight.fill_(7)
        twin[3].weight.fill_(7)
    assert (twin[1].weight == 7).all()
    assert (twin[0].seen[0] == 7).all()
    assert twin[3].bias.tolist() == [4, 5]
    assert not (model[0].weight == 7).any()
    assert flat.tolist() == list(range(12))


def test_modes_are_those_of_the_model_through_its_own_train():
    class Remembers(nn.Linear):
        how = "training"

        def train(self, mode=True):
            self.how = "training" if mode else "evaluation"
            return super().train(mode)

        def __deepcopy__(self, memo):
            return Remembers(2, 2)

    model = nn.Sequential(nn.Dropout(), Remembers(2, 2)).train()
    model[1].eval()
    twin = copy_model(model)
    assert (twin.training, twin[0].training, twin[1].training, twin[1].how) == (
        True,
        True,
        False,
        "evaluation",
    )


class SaysNothing(nn.Linear):
    def train(self, mode=True):
        super().train(mode)


def test_a_model_whose_train_returns_nothing_is_copied_for_inference():
    twin = copy_for_inference(SaysNothing(2, 2))
    assert isinstance(twin, SaysNothing)
    assert not twin.training


def test_a_model_whose_train_returns_nothing_is_loaded(tmp_path):
    torch.manual_seed(0)
    model = SaysNothing(32, 32)
    result = tt.compress(model, torch.zeros(1, 32), energy=0.5)
    assert not tt.load(result.save(tmp_path / "out"), into=SaysNothing(32, 32)).training
