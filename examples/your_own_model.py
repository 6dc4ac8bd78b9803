"""Compress a model of your own, save it, and load it without unpickling anything."""

import tempfile
from pathlib import Path

import torch
from torch import nn

import tuckertree as tt


def build() -> nn.Module:
    """The model as your code builds it; here with random weights."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(32, 64, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(64, 64, 3, padding=1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(64, 10),
    )


model = build()
image = torch.zeros(1, 3, 32, 32)
result = tt.compress(model, image, energy=0.7)
print(result)

with tempfile.TemporaryDirectory() as folder:
    saved = result.save(Path(folder) / "small")
    loaded = tt.load(saved, into=build())

with torch.no_grad():
    x = torch.randn(4, 3, 32, 32)
    assert torch.equal(loaded(x), result.model.eval()(x))
