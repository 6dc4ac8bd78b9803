"""Work for processes of their own, which import it by name."""

import math
import os
import time
from itertools import pairwise

import torch
from torch import nn

import tuckertree as tt
from tuckertree.measure import count_parameters
from tuckertree.tools.comparison import Fold, Task
from tuckertree.tools.data import open_calibration, open_images
from tuckertree.tools.models import resolve


def square(number):
    """The square of a number, slower for the first; some numbers break."""
    if number == 13:
        raise tt.TuckertreeError("thirteen")
    if number == 14:
        raise ZeroDivisionError("fourteen")
    if number == 15:
        os._exit(9)
    time.sleep(0.2 if number == 1 else 0)
    return number * number


def where(_):
    """Where a module comes from that the working folder has too."""
    import json
    import multiprocessing

    return json.__file__, multiprocessing.__file__, os.getpid()


def wait(path):
    """Say that the process runs, and go on for a long time."""
    path.write_text(str(os.getpid()))
    time.sleep(600)


def tiny():
    """A network that is made in no time, always the same."""
    torch.manual_seed(0)
    widths = (3, 16, 24, 24)
    layers = [
        layer
        for before, after in pairwise(widths)
        for layer in (nn.Conv2d(before, after, 3, 2, 1), nn.BatchNorm2d(after), nn.ReLU())
    ]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(widths[-1], 10)).eval()


def tiny_task(images=24):
    """It and a few images."""
    known = resolve("demo").preprocessing
    test, fitted = open_images("demo", known, limit=images), open_calibration("demo", known, limit=images)
    return Task.on_images("tiny", tiny(), torch.zeros(1, 3, 32, 32), test, fitted)


def sharpness(model):
    """Two numbers of a network, of which more is better."""
    generator = torch.Generator().manual_seed(1)
    images = torch.rand(8, 3, 32, 32, generator=generator)
    error = float((model(images) - tiny()(images)).square().mean())
    return {"dB": -10 * math.log10(error + 1e-6), "error": -error}


def broken(model):
    """A score that a compressed network does not get."""
    if count_parameters(model) < count_parameters(tiny()):
        raise ZeroDivisionError("no boxes")
    return {"mAP": 50.0}


def folded_task(score=sharpness, counts=(3, 1)):
    """A network and halves of images, with a score function."""
    images = torch.rand(64, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    folds = [Fold(score, count, part) for count, part in zip(counts, images.split(32), strict=True)]
    return Task("folded", tiny(), images[:1], folds, "pictures", "noise")


class Twice(nn.Module):
    """Two outputs, an addition behind the last layers, and a layer in the middle."""

    def __init__(self, hidden=False):
        super().__init__()
        self.hidden = hidden
        self.first = nn.Conv2d(3, 16, 3, padding=1)
        self.middle = nn.Conv2d(16, 16, 3, padding=1)
        self.left, self.right = nn.Conv2d(16, 4, 1), nn.Conv2d(16, 4, 1)
        self.norm = nn.BatchNorm2d(16)

    def forward(self, x):
        x = self.norm(self.first(x)).relu()
        x = self.middle(x).relu()
        return (self.left(x) + self.right(x)).sigmoid(), (x.detach() if self.hidden else x).mean((2, 3))


class Chosen(nn.Module):
    """What cannot be traced: there is no derivative."""

    def __init__(self):
        super().__init__()
        self.only = nn.Conv2d(3, 8, 3)

    def forward(self, x):
        return self.only(x).argmax(1).float()
