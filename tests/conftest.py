"""Fixtures of all packages."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real images and trained weights that the environment variable TUCKERTREE_DATA names."""
    folder = os.environ.get("TUCKERTREE_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("TUCKERTREE_DATA names no folder of real images and weights")
    return Path(folder)


@pytest.fixture(scope="session", autouse=True)
def _no_search_for_a_driver() -> None:
    # Lightning sets it when it is imported, and the tests import it before the library can undo that.
    os.environ.pop("PYTORCH_NVML_BASED_CUDA_CHECK", None)


@pytest.fixture
def fresh_compiler() -> None:
    """Forget what was compiled: torch gives up on code that it has compiled for many layers in one process."""
    if "torch._dynamo" in sys.modules:
        torch._dynamo.reset()


@pytest.fixture(scope="module")
def interpreted() -> Iterator[None]:
    """Triton's kernels by its interpreter, on the CPU: they become so when their module is imported, by these tests alone."""
    pytest.importorskip("triton")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_INTERPRET", "1")
        yield
