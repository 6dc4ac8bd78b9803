"""An ONNX file in 8 bits: what is in it, what it loses, and what is refused."""

import logging

import pytest
import torch
from torch import nn

from tuckertree._base.errors import TuckertreeError, UsageError
from tuckertree.io.export import FileNetwork, export

pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def network():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(64, 4)
        ).eval()


@pytest.fixture(scope="module")
def batches():
    return [torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(n)) for n in range(3)]


@pytest.fixture(scope="module")
def exported(network, batches, tmp_path_factory):
    path = tmp_path_factory.mktemp("int8") / "net.onnx"
    return export(network, path, torch.zeros(1, 3, 8, 8), calibration=batches)


def test_weights_are_integers_with_a_scale_for_each_channel(exported):
    import onnx

    graph = onnx.load(exported.path).graph
    assert {"QuantizeLinear", "DequantizeLinear"} <= {node.op_type for node in graph.node}
    sizes = {tuple(t.dims): t.data_type for t in graph.initializer}
    assert sizes[16, 3, 3, 3] == onnx.TensorProto.INT8
    assert (16,) in sizes  # the scales of the convolution's channels
    assert [file.name for file in exported.path.parent.iterdir()] == ["net.onnx"]


def test_the_outputs_are_near_those_of_the_model(exported, network, batches):
    assert 0 < exported.difference < 0.1
    assert exported.compared == (((12, 3, 8, 8),),)
    with torch.no_grad():
        expected = network(batches[1])
    found = FileNetwork(exported.path)(batches[1])
    assert not torch.equal(found, expected)
    assert float((found - expected).abs().max()) < 0.1 * float(expected.abs().max())


def test_a_file_of_one_batch_is_quantized_by_batches_of_that_size(network, batches, tmp_path):
    path = tmp_path / "net.onnx"
    done = export(network, path, torch.zeros(3, 3, 8, 8), calibration=batches, dynamic="none")
    assert done.compared == (((3, 3, 8, 8),),)


@pytest.mark.parametrize(
    ("name", "options", "error", "message"),
    [
        ("net.onnx", {"calibration": []}, TuckertreeError, "no calibration images"),
        ("net.onnx", {"calibration": [torch.zeros(2, 3, 9, 9)]}, TuckertreeError, r"are \[2, 3, 9, 9\]"),
        ("net.onnx", {"tolerance": 1e-9}, TuckertreeError, "8 bits in one layer alone"),
        ("net.pt2", {}, UsageError, "quantization is for ONNX files"),
    ],
)
def test_what_cannot_be_quantized_is_refused(network, batches, tmp_path, name, options, error, message):
    with pytest.raises(error, match=message):
        export(network, tmp_path / name, torch.zeros(1, 3, 8, 8), **{"calibration": batches, **options})
    assert not list(tmp_path.iterdir())


class FixedBatch(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)

    def forward(self, x):
        return self.conv(x).view(40, 8 * 36)


def test_a_network_of_a_fixed_batch_is_quantized_by_whole_ones(tmp_path):
    x = torch.randn(40, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    done = export(FixedBatch().eval(), tmp_path / "net.onnx", x, calibration=[x], dynamic="none")
    assert done.compared == (((40, 3, 8, 8),),)


def test_nothing_is_left_on_the_root_logger(network, batches, tmp_path):
    root = logging.getLogger()
    before = list(root.handlers), root.level
    root.handlers.clear()  # then logging.warning() adds one
    try:
        export(network, tmp_path / "net.onnx", torch.zeros(1, 3, 8, 8), calibration=batches)
        assert root.handlers == []
        assert root.level == before[1]
    finally:
        root.handlers[:] = before[0]
