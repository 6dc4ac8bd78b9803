"""A small trained network that has been compressed."""

import pytest
import torch

import tuckertree


@pytest.fixture(scope="session")
def compressed():
    return tuckertree.compress(tuckertree.build("demo"), torch.zeros(1, 3, 32, 32), energy=0.6)
