"""Outputs of two models compared: numbers, integers, and what has another size each time."""

import numpy as np
import pytest

import tuckertree as tt
from tests.network.onnx.cases import (
    IMAGES,
    TensorProto,
    constant,
    helper,
    network,
    onnx,
    save,
    value,
)
from tuckertree._base.errors import TuckertreeError
from tuckertree.network.onnx.agreement import Agreement, compare_outputs
from tuckertree.onnx_models import compress_onnx

Y = np.array([[3.0, 4.0]], dtype=np.float32)


def compared(ours, theirs, shapes=None):
    return compare_outputs([{"y": ours}], [{"y": theirs}], shapes or {"y": (1, 2)})


def test_numbers_and_integers():
    assert compared(Y, Y + np.array([[0, 1]])) == Agreement(pytest.approx(0.2), None)
    assert compared(0 * Y, 0 * Y) == Agreement(0.0, None)
    assert compared(Y > 3, Y > 0) == Agreement(None, 0.5)
    both = {"y": Y, "class": np.array([1, 2, 3, 4])}
    found = compare_outputs([both] * 2, [both, {**both, "class": np.array([1, 2, 3, 0])}], {})
    assert found == Agreement(0.0, 7 / 8)
    assert str(found) == "0 relative error; 87.50% of the integers the same"


def test_what_is_not_finite_before_is_left_out_and_what_became_so_refused():
    nan = np.array([[np.nan, 4.0]], dtype=np.float32)
    assert compared(nan, Y) == Agreement(0.0, None)
    assert compared(nan * nan * [[1, np.nan]], Y) == Agreement(None, None)
    with pytest.raises(TuckertreeError, match="y became NaN or infinite"):
        compared(Y, nan)


def test_only_a_free_size_may_differ():
    other = np.zeros((2, 2), dtype=np.float32)
    found = compared(Y, other, {"y": ("boxes", 2)})
    assert found == Agreement(None, None, ("y",))
    assert str(found) == "y not compared, its size depends on the values"
    for shapes in ({"y": (1, 2)}, {"y": ()}, {"y": (None, None, 2)}):
        with pytest.raises(TuckertreeError, match=r"y became \[2, 2\]; it was \[1, 2\]"):
            compared(Y, other, shapes)


def detector(path, outputs):
    """A network whose outputs are which of its channels are large, and the largest."""
    proto = onnx.load(network(path))
    nodes = [
        *proto.graph.node,
        constant("threshold", np.array(0.2, dtype=np.float32)),
        helper.make_node("Greater", ["c2", "threshold"], ["large"]),
        helper.make_node("NonZero", ["large"], ["found"]),
        helper.make_node("ArgMax", ["y"], ["class"], axis=1),
    ]
    known = {
        "y": value("y", ["batch", 16]),
        "found": value("found", [4, "n"], TensorProto.INT64),
        "class": value("class", ["batch", 1], TensorProto.INT64),
    }
    return save(
        path, nodes, list(proto.graph.input), [known[name] for name in outputs], list(proto.graph.initializer)
    )


def test_a_detector_that_finds_another_number_of_things_can_be_compressed(tmp_path):
    result = compress_onnx(
        detector(tmp_path / "m.onnx", ["y", "found"]), tmp_path / "small.onnx", tt.Budget(params=0.2)
    )
    assert result.output.outputs.left_out == ("found",)
    assert 0 < result.output.error < 1
    assert result.summary()["outputs_left_out"] == ["found"]
    assert "found not compared" in str(result)


def test_a_classifier_that_gives_the_class_alone_is_compared_by_it(tmp_path):
    path = detector(tmp_path / "m.onnx", ["class"])
    result = compress_onnx(path, tmp_path / "small.onnx", tt.Budget(params=0.9))
    assert result.output.error is None
    assert result.output.outputs.same in (0.0, 1.0)
    assert "of the integers the same" in str(result)
    options = {"calibration": IMAGES, "objective": "sensitivity"}
    with pytest.raises(TuckertreeError, match="no output is of floating-point numbers, so the sensitivity"):
        compress_onnx(path, tmp_path / "other.onnx", tt.Budget(params=0.9), **options)
