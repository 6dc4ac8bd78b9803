"""Every runtime computes what PyTorch does, and says what it cannot do."""

import copy

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


class Two(nn.Module):
    """Two inputs and two outputs, and layers that differ in training."""

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.conv, self.norm = nn.Conv2d(2, 3, 3, stride=2, padding=1), nn.BatchNorm2d(3)

    def forward(self, x, y):
        z = self.norm(self.conv(x)) + y
        return {"sum": z, "rest": [z.mean((2, 3))]}


@pytest.fixture(scope="module")
def inputs():
    generator = torch.Generator().manual_seed(0)
    return (torch.randn(2, 2, 6, 6, generator=generator), torch.randn(2, 3, 1, 1, generator=generator))


@pytest.mark.parametrize("name", PACKAGES)
def test_outputs_are_those_of_the_model_which_is_left_alone(name, inputs):
    model = Two().eval()
    with torch.no_grad():
        expected = model(*inputs)
    before = copy.deepcopy(model.state_dict())
    runnable = runtime_of(name).load(model, inputs)
    first, second = runnable.run(inputs)
    torch.testing.assert_close(first, expected["sum"])
    torch.testing.assert_close(second, expected["rest"][0])
    runnable.bind(inputs)()
    assert all(torch.equal(model.state_dict()[key], value) for key, value in before.items())


@pytest.mark.parametrize("name", PACKAGES)
def test_branches_are_taken_apart_again(name):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        # the first two are the same but for their weights, and share a bias
        models = [nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1), nn.Sequential(nn.Conv2d(3, 2, 3), nn.ReLU())]
        models[1].bias = models[0].bias
        x = torch.randn(1, 3, 5, 5)
    loaded = runtime_of(name).load_branches(models, [x])
    for model, runnable in zip(models, loaded, strict=True):
        torch.testing.assert_close(runnable.run([x]), [model(x).detach()])


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
