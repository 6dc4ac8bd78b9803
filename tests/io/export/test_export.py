"""Exported files compute what the model does, and nothing else is ever left behind."""

import warnings
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import tuckertree
from tuckertree._base.errors import TuckertreeError, UsageError
from tuckertree.io.export import export
from tuckertree.runtimes.torch_runtimes import TorchRuntime

PACKAGES = {
    "onnx": ("onnx", "onnxscript", "onnxruntime"),
    "pt2": (),
    "openvino": ("onnx", "onnxscript", "openvino"),
}
ENDINGS = {"onnx": "net.onnx", "pt2": "net.pt2", "openvino": "net.xml"}


@pytest.fixture(scope="module", params=PACKAGES)
def exported(request, compressed, tmp_path_factory):
    for package in PACKAGES[request.param]:
        pytest.importorskip(package)
    path = tmp_path_factory.mktemp("export") / ENDINGS[request.param]
    return export(compressed.model, path, torch.zeros(1, 3, 32, 32))


def run_file(exported, x):
    """Run the file by its own runtime alone, without any code of ours."""
    if exported.to == "pt2":
        return torch.export.load(exported.path).module()(x).detach()
    if exported.to == "onnx":
        import onnxruntime

        runnable = onnxruntime.InferenceSession(exported.path, providers=["CPUExecutionProvider"])
        return torch.from_numpy(runnable.run(None, {runnable.get_inputs()[0].name: x.numpy()})[0])
    import openvino

    compiled = openvino.Core().compile_model(exported.path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return torch.from_numpy(compiled([x.numpy()])[0].copy())


def test_a_compressed_network_in_a_file_of_its_own(exported, compressed):
    assert exported.difference <= exported.tolerance == 1e-4
    assert exported.compared == (((1, 3, 32, 32),), ((1, 3, 32, 32),), ((3, 3, 32, 32),))
    files = sorted(file.name for file in exported.path.parent.iterdir())
    assert files == (["net.bin", "net.xml"] if exported.to == "openvino" else [exported.path.name])
    assert exported.size == sum(file.stat().st_size for file in exported.path.parent.iterdir())
    x = torch.randn(5, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad(), warnings.catch_warnings():
        # torch's loader and openvino's bindings use what their dependencies have deprecated
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", FutureWarning)
        torch.testing.assert_close(run_file(exported, x), compressed.model(x), rtol=1e-4, atol=1e-4)


@pytest.fixture
def network():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
        )


def test_every_size_can_stay_free(network, tmp_path):
    done = export(network, tmp_path / "net.pt2", torch.zeros(1, 3, 8, 8), dynamic="size")
    assert done.compared[-1] == ((1, 3, 12, 12),)
    assert torch.export.load(tmp_path / "net.pt2").module()(torch.zeros(2, 3, 9, 10)).shape == (2, 4)


def test_the_model_is_left_alone(network, tmp_path):
    network.train()
    network[1].eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    export(network, tmp_path / "net.pt2", torch.zeros(2, 3, 8, 8), dynamic="none")
    assert [module.training for module in network] == [True, False, True, True, True]
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


@pytest.fixture
def spoil(monkeypatch):
    """Let files of torch be any bytes, and compute what is given."""

    def set_outputs(compute):
        def write(self, model, inputs, path, dynamic):
            path.write_bytes(b"a new file")

        monkeypatch.setattr(TorchRuntime, "write", write)
        monkeypatch.setattr(TorchRuntime, "open", lambda self, path: SimpleNamespace(run=compute))

    return set_outputs


def test_a_file_that_computes_something_else_is_not_kept(network, tmp_path, spoil):
    (tmp_path / "net.pt2").write_bytes(b"what was there")
    network.eval()
    spoil(lambda some: [network(*some).detach() + torch.tensor([0, 0, 0, 1e-2])])
    arguments = (network, tmp_path / "net.pt2", torch.ones(1, 3, 8, 8))
    with pytest.raises(TuckertreeError, match="computes something else than the model"):
        export(*arguments, overwrite=True)
    assert (tmp_path / "net.pt2").read_bytes() == b"what was there"
    assert len(list(tmp_path.iterdir())) == 1
    export(*arguments, overwrite=True, tolerance=1)
    assert (tmp_path / "net.pt2").read_bytes() == b"a new file"


def test_a_file_that_does_not_run_at_another_batch_is_one_line(network, tmp_path, spoil):
    network.eval()
    spoil(lambda some: [network(some[0].reshape(2, 3, 8, 8)).detach()])
    with pytest.raises(
        TuckertreeError, match=r"^the exported file does not run on inputs .*--dynamic none"
    ) as caught:
        export(network, tmp_path / "net.pt2", torch.ones(2, 3, 8, 8))
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


class MeanUnderMask(nn.Module):
    """Pixels of the mask have a mean; with no pixel in it there is none."""

    def forward(self, x, mask):
        return (x * mask[:, None]).sum((2, 3)) / mask.sum((1, 2))[:, None]


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool])
def test_integers_are_compared_with_the_values_of_the_example(dtype, tmp_path):
    mask = torch.zeros(1, 4, 4, dtype=dtype)
    mask[:, 1:3] = 1
    done = export(MeanUnderMask(), tmp_path / "net.pt2", (torch.randn(1, 3, 4, 4), mask))
    assert done.difference < 1e-6
    assert {shapes[1] for shapes in done.compared} == {(1, 4, 4), (3, 4, 4)}


@pytest.mark.parametrize(
    ("value", "message"),
    [(lambda y: y * float("nan"), "computes something else"), (lambda y: y[:, :1], "gives outputs")],
)
def test_nan_and_other_shapes_are_no_agreement(network, tmp_path, spoil, value, message):
    network.eval()
    spoil(lambda some: [value(network(*some).detach())])
    with pytest.raises(TuckertreeError, match=message):
        export(network, tmp_path / "net.pt2", torch.ones(1, 3, 8, 8), tolerance=1e9)
    assert not list(tmp_path.iterdir())


class Branching(nn.Module):
    def forward(self, x):
        return x * (2.0 if float(x.sum()) > 0 else 3.0)


@pytest.mark.parametrize(
    ("name", "options", "error", "message"),
    [
        ("net.txt", {}, UsageError, r"does not say by its ending what to export: .*\.onnx \(onnx\)"),
        ("net.onnx", {"to": "pt2"}, UsageError, r"of the format pt2 ends with \.pt2"),
        ("net.tflite", {"to": "tflite"}, UsageError, "unknown format 'tflite'; known: pt2, onnx, openvino"),
        ("net.pt2", {"dynamic": "all"}, UsageError, "free sizes can be none, batch, size, not 'all'"),
        ("net.pt2", {"example_inputs": torch.zeros(1, 4, 8, 8)}, TuckertreeError, r"\[1, 4, 8, 8\]"),
        ("net.pt2", {"example_inputs": {"x": torch.zeros(1)}}, UsageError, "positional inputs"),
        ("net.pt2", {"example_inputs": ()}, UsageError, "positional inputs"),
        ("net.pt2", {"model": Branching()}, TuckertreeError, "cannot be exported to pt2: "),
        ("folder.pt2", {}, TuckertreeError, "is a folder"),
        ("there.pt2", {}, TuckertreeError, "overwrite=True"),
    ],
)
def test_bad_arguments_are_one_line_and_nothing_is_written(network, tmp_path, name, options, error, message):
    (tmp_path / "folder.pt2").mkdir()
    (tmp_path / "there.pt2").touch()
    before = sorted(tmp_path.iterdir())
    arguments = {"model": network, "example_inputs": torch.zeros(1, 3, 8, 8)} | options
    with pytest.raises(error, match=message) as caught:
        export(path=tmp_path / name, **arguments)
    assert "\n" not in str(caught.value)
    assert sorted(tmp_path.iterdir()) == before


def test_a_transposed_chain_can_be_exported(tmp_path):
    chain = tuckertree.factorize(nn.ConvTranspose2d(4, 4, 3, stride=2), "ht2", (2, 2, 2))
    assert export(chain, tmp_path / "net.pt2", torch.zeros(1, 4, 5, 5)).difference < 1e-6


class Several(nn.Module):
    """A forward with inputs of its own names, and any number after them."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x, y=None, *more, scale=1.0):
        return sum((self.conv(z) for z in more), self.conv(x if y is None else x + y)) * scale


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("dynamic", ["none", "batch", "size"])
@pytest.mark.parametrize(
    ("model", "count"),
    [(Several(), 1), (Several(), 2), (Several(), 4), (nn.DataParallel(nn.Conv2d(3, 4, 3)), 1)],
    ids=["one", "two", "four", "data parallel"],
)
def test_a_forward_of_any_number_of_inputs_has_a_free_batch(model, count, dynamic, tmp_path):
    inputs = tuple(torch.full((1, 3, 8, 8), float(number)) for number in range(count))
    done = export(model.eval(), tmp_path / "net.pt2", inputs, dynamic=dynamic)
    assert done.difference < 1e-5
    if dynamic != "none":
        program = torch.export.load(tmp_path / "net.pt2").module()
        assert program(*(x.expand(5, -1, -1, -1) for x in inputs)).shape == (5, 4, 6, 6)


def test_any_number_of_inputs_to_onnx(tmp_path):
    for package in PACKAGES["onnx"]:
        pytest.importorskip(package)
    inputs = tuple(torch.rand(1, 3, 8, 8) for _ in range(3))
    done = export(Several().eval(), tmp_path / "net.onnx", inputs)
    assert done.difference <= done.tolerance
    assert [len(shape) for shape in done.compared] == [3, 3, 3]
