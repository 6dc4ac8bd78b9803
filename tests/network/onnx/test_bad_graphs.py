"""Graphs that are none: one line that says what and where, and nothing is written."""

import numpy as np
import pytest

import tuckertree as tt
from tests.network.onnx.cases import helper, numbers, save, tensor, value
from tuckertree._base.errors import TuckertreeError
from tuckertree.onnx_models import compress_onnx


def node(kind, inputs, output, **attributes):
    return helper.make_node(kind, inputs, [output], **attributes)


CONV = node("Conv", ["x", "w"], "c", name="conv")
W = tensor("w", numbers(16, 8, 3, 3))
BAD = {
    "a cycle": ([node("Add", ["c", "b"], "a"), node("Relu", ["a"], "b")], [W], "topologically sorted.*'b'"),
    "a missing input": ([node("Add", ["c", "nowhere"], "y")], [W], "'nowhere'.*Add"),
    "an unknown operator": ([node("Frobnicate", ["c"], "y")], [W], "No Op registered for Frobnicate"),
    "an unknown domain": ([node("Frob", ["c"], "y", domain="my.own")], [W], "No opset import .* 'my.own'"),
    "a constant of the wrong type": (
        [node("Add", ["c", "k"], "y", name="plus")],
        [W, tensor("k", np.array([1]))],
        "different types .*plus",
    ),
    "a weight of whole numbers": (
        [node("Relu", ["c"], "y")],
        [tensor("w", np.ones((16, 8, 3, 3), np.int32))],
        r"int32.* \(w\) .*conv",
    ),
    "a weight of another width": ([node("Relu", ["c"], "y")], [tensor("w", numbers(16, 7, 3, 3))], "C: 8"),
    "a shape that does not fit": (
        [node("Reshape", ["c", "s"], "y", name="reshape")],
        [W, tensor("s", np.array([7, 13]))],
        "Reshape node.*reshape",
    ),
    "a value given twice": (
        [node("Relu", ["c"], "c"), node("Relu", ["c"], "y")],
        [W],
        "'c' .*multiple times",
    ),
}


@pytest.mark.parametrize("images", [None, numbers(32, 8, 6, 6)], ids=["weights", "images"])
@pytest.mark.parametrize("name", BAD)
def test_a_bad_graph_is_refused_in_one_line(name, images, tmp_path):
    nodes, tensors, message = BAD[name]
    path = save(tmp_path / "m.onnx", [CONV, *nodes], [value("x", ["n", 8, 6, 6])], [value("y", 4)], tensors)
    with pytest.raises(TuckertreeError, match=message) as caught:
        compress_onnx(path, tmp_path / "small.onnx", tt.Budget(macs=0.6), calibration=images)
    assert "\n" not in str(caught.value)
    assert [file.name for file in tmp_path.iterdir()] == ["m.onnx"]
