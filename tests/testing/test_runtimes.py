"""Every runtime of the package keeps the contract; one that is added keeps it, or is refused."""

import functools
import os

import pytest
import torch
from torch import nn

from tuckertree.core.layers import factorize
from tuckertree.runtimes.triton_runtime import TritonRuntime
from tuckertree.testing import RuntimeContract


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TUCKERTREE_CACHE", str(tmp_path / "cache"))


class TestTorch(RuntimeContract):
    runtime = "torch"


class TestCompiled(RuntimeContract):
    """Inductor takes a compiler and a minute, so that it stands in for itself only where one asks for it."""

    runtime = "torch-compile"

    @pytest.fixture(autouse=True)
    def traced_alone(self, monkeypatch):
        if not os.environ.get("TUCKERTREE_SLOW"):
            monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))
        yield
        torch.compiler.reset()  # with what was compiled in it torch 2.6 exports no longer


class TestOnnxRuntime(RuntimeContract):
    runtime = "onnxruntime"

    @pytest.fixture(autouse=True)
    def installed(self):
        for package in ("onnx", "onnxscript", "onnxruntime"):
            pytest.importorskip(package)


class TestOpenVino(RuntimeContract):
    runtime = "openvino"

    @pytest.fixture(autouse=True)
    def installed(self):
        for package in ("onnx", "onnxscript", "openvino"):
            pytest.importorskip(package)


@pytest.mark.usefixtures("interpreted")
class TestTriton(RuntimeContract):
    """By Triton's interpreter, on the CPU; the kernels always faster."""

    runtime = "triton"

    def make(self, threads=1):
        return TritonRuntime(threads, "cpu", timer=lambda runs: range(len(runs), 0, -1))

    def cases(self):
        torch.manual_seed(0)
        chain = factorize(nn.Conv2d(16, 16, 3, padding=1), "ht2", (4, 6, 4))
        net = nn.Sequential(nn.Conv2d(3, 16, 3), chain, nn.BatchNorm2d(16), nn.ReLU(), nn.Flatten())
        return [*super().cases(), (net.eval(), (torch.randn(2, 3, 6, 5),))]
