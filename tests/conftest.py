"""Fixtures of all rooms."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real images and trained weights that the environment variable TUCKERTREE_DATA names."""
    folder = os.environ.get("TUCKERTREE_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("TUCKERTREE_DATA names no folder of real images and weights")
    return Path(folder)
