"""Networks, images and interruptions for tests of training."""

import signal

import torch
from torch import nn

from tuckertree.tools.data import open_images
from tuckertree.tools.models import resolve


def tiny_network():
    """A network with a norm, dropout and 10 outputs, for images of 32x32."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Dropout(0.2),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(32, 10),
    ).eval()


def demo_images(limit=None, split="train"):
    return open_images("demo", resolve("demo").preprocessing, split=split, limit=limit)


def same_weights(a, b):
    a, b = a.state_dict(), b.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def terminate():
    """Ask this process to end; where nothing would catch it the test fails, and not its worker."""
    assert callable(signal.getsignal(signal.SIGTERM))
    signal.raise_signal(signal.SIGTERM)
