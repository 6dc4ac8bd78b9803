"""A run in two processes, of which one may die; see test_processes.py."""

import os
import sys
from pathlib import Path

import torch
from torch import nn

from tests.tools.training.cases import demo_images
from tuckertree._base.errors import TuckertreeError
from tuckertree.tools.training import Settings, train


class Mortal(nn.Module):
    """A network without BatchNorm, the second process of which dies once if a file tells it to."""

    def __init__(self, omen):
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Conv2d(3, 8, 5, stride=4), nn.ReLU(), nn.Flatten(), nn.Linear(392, 10))
        self.omen = omen
        self.steps = 0

    def forward(self, x):
        self.steps += self.training
        if self.steps == 7 and os.environ.get("LOCAL_RANK") == "1" and self.omen.exists():
            os._exit(9)
        return self.layers(x)


def trained(folder, devices, *, resume=False):
    settings = Settings(2, batch_size=16, limit_train=100, devices=devices, ema=0.9)
    network = Mortal(folder / "omen")
    outcome = train(network, demo_images(), settings, output=folder / str(devices), resume=resume)
    return outcome.model.state_dict(), list(outcome.history)


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    try:
        torch.save(trained(folder, 2, resume=sys.argv[2] == "resume"), folder / "trained.pt")
    except TuckertreeError as error:
        sys.exit(f"error: {error}")
