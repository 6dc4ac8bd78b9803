"""A model's state is put back as it was."""

import torch
from torch import nn

from tuckertree.measure import preserved


class Grows(nn.Module):
    """Changes sizes and values of its buffer in place, as observers of quantization do."""

    def __init__(self):
        super().__init__()
        self.register_buffer("scale", torch.tensor([0.5]))

    def forward(self, x):
        self.scale.resize_(x.shape).copy_(x)


def test_a_buffer_resized_in_place_has_its_size_and_values_back():
    model = Grows()
    buffer = model.scale
    with preserved(model):
        model(torch.ones(8))
    assert model.scale is buffer
    assert buffer.tolist() == [0.5]


def test_values_that_are_no_numbers_have_not_changed():
    model = nn.Linear(2, 2)
    with torch.no_grad():
        model.weight[0, 0] = torch.nan
    with preserved(model) as state:
        assert not state.has_changed(model.weight)
        assert state.restore() == []
