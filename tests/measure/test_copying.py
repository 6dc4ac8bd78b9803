"""Copies of models: the same tensors shared, in the same modes."""

import torch
from torch import nn

from tuckertree.measure import copy_model


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
