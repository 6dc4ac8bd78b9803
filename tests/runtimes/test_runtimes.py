"""What runtimes cannot do, they say; that they compute what PyTorch does is their contract (tests/testing)."""

import pytest
import torch
from torch import nn

from tuckertree._base.errors import TuckertreeError, UsageError
from tuckertree.runtimes import get_runtime, to_onnx

PACKAGES = {
    "torch": ("torch",),
    "onnxruntime": ("onnx", "onnxscript", "onnxruntime"),
    "openvino": ("onnx", "onnxscript", "openvino"),
}


def runtime_of(name):
    for package in PACKAGES[name]:
        pytest.importorskip(package)
    return get_runtime(name, threads=1)


def test_threads_of_torch_are_set_and_set_back():
    before = torch.get_num_threads()
    with get_runtime("torch", threads=before + 1).active():
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "tensorflow"}, "unknown runtime 'tensorflow'; known: torch, torch-compile, onnx"),
        ({"name": "torch", "threads": 0}, "at least one thread, got 0"),
        ({"name": "onnxruntime", "device": "cuda"}, "on the cpu alone"),
        ({"name": "openvino", "device": "cuda:1"}, "on the cpu alone"),
        ({"name": "torch", "device": "abacus"}, "runs on the cpu, cuda, mps, xpu, not on abacus"),
        ({"name": "torch", "device": "cuda:999"}, "^device 'cuda:999' cannot be used here: [^\\n]*$"),
    ],
)
def test_what_cannot_be_is_refused(arguments, message):
    with pytest.raises(UsageError, match=message):
        get_runtime(**arguments)


def test_a_file_that_is_no_onnx_model_is_one_line(tmp_path):
    (tmp_path / "x.onnx").write_bytes(b"not a model\n" * 9)
    for name in ("onnxruntime", "openvino"):
        with pytest.raises(TuckertreeError, match=rf"{name} cannot load .*x\.onnx: [^\n]*$"):
            runtime_of(name).open(tmp_path / "x.onnx")
    with pytest.raises(TuckertreeError, match="there is no file"):
        runtime_of("onnxruntime").open(tmp_path / "y.onnx")
    with pytest.raises(TuckertreeError, match="which the runtime torch does not read"):
        get_runtime("torch").open(tmp_path / "x.onnx")


class Lookup(nn.Module):
    def forward(self, x):
        return x * (2.0 if float(x.sum()) > 0 else 3.0)


def test_what_cannot_be_exported_is_one_line():
    pytest.importorskip("onnxscript")
    with pytest.raises(TuckertreeError, match=r"^the model cannot be exported to onnx: \w+: [^\n]+$"):
        to_onnx(Lookup(), [torch.ones(2)])


def test_torch_compile_is_handed_each_module_by_itself(monkeypatch):
    # Compiling takes a compiler and a minute; what is tested is what is given to it.
    seen = []

    def compile_(function, **options):
        seen.append((function.__code__, options))
        return function

    monkeypatch.setattr(torch, "compile", compile_)
    models = [nn.Linear(3, 2), nn.Linear(3, 4)]
    x = torch.ones(2, 3)
    loaded = get_runtime("torch-compile", threads=1).load_branches(models, [x])
    for model, runnable in zip(models, loaded, strict=True):
        torch.testing.assert_close(runnable.run([x]), [model(x).detach()])
    (first, options), (second, _) = seen
    assert first is not second
    assert options == {"dynamic": False}
