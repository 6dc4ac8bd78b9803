"""Which nodes are quantized, and by what."""

import pytest
import torch
from torch import nn

from tuckertree._base.errors import TuckertreeError
from tuckertree.runtimes import get_runtime, quantized, to_onnx

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")
X = torch.randn(2, 3, 12, 12, generator=torch.Generator().manual_seed(0))


class Normalised(nn.Module):
    """Local response normalisation, written out, between two convolutions."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 1)

    def forward(self, x):
        x = 40 * self.first(x).relu()
        return self.last(torch.max_pool2d(x / (1 + x * x + (x * x).roll(1, 1)).sqrt(), 2)).relu()


@pytest.fixture(scope="module")
def proto():
    return to_onnx(Normalised().eval(), [X])


def made_by(proto):
    return {name: node for node in proto.graph.node for name in node.output}


def test_what_spreads_numbers_and_what_follows_it_stays_in_floating_point(proto):
    before = proto.SerializeToString()
    found = quantized(proto, [[X]])
    assert proto.SerializeToString() == before
    makers = made_by(found)
    inputs = {
        (node.op_type, makers[name].op_type)
        for node in found.graph.node
        for name in node.input
        if name in makers and "Linear" not in node.op_type
    }
    assert not any(
        maker == "DequantizeLinear" for kind, maker in inputs if kind in ("Sqrt", "Add", "MaxPool")
    )
    assert all(maker == "DequantizeLinear" for kind, maker in inputs if kind == "Conv")
    model, (y,) = (
        Normalised().eval(),
        get_runtime("onnxruntime").load_onnx(found.SerializeToString()).run([X]),
    )
    with torch.no_grad():
        expected = model(X)
    assert 0 < float((y - expected).norm()) < 0.05 * float(expected.norm())


def test_nodes_may_be_left_out_by_name(proto, tmp_path):
    names = [node.name for node in proto.graph.node if node.op_type == "Conv"]
    (tmp_path / "m.onnx").write_bytes(proto.SerializeToString())
    found = quantized(tmp_path / "m.onnx", [[X]], names[:1])
    makers = made_by(found)
    kinds = {
        node.name: makers[node.input[1]].op_type if node.input[1] in makers else "constant"
        for node in found.graph.node
        if node.op_type == "Conv"
    }
    assert kinds == {names[0]: "constant", names[1]: "DequantizeLinear"}


def test_nodes_without_names_are_quantized_too(proto):
    other = onnx.ModelProto()
    other.CopyFrom(proto)
    for node in other.graph.node:
        node.name = ""
    kinds = [node.op_type for node in quantized(other, [[X]]).graph.node]
    assert kinds == [node.op_type for node in quantized(proto, [[X]]).graph.node]


def test_a_model_that_cannot_be_quantized_is_one_line(proto):
    for batches in ([], [[X[:, :, :5]]], [[X, X]]):
        with pytest.raises(TuckertreeError, match=r"^the ONNX model cannot be quantized: [^\n]+$"):
            quantized(proto, batches)
