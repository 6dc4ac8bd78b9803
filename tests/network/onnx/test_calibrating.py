"""Calibration of ONNX models with inputs, images and layers that are not as one would like."""

import warnings

import numpy as np
import pytest
import torch

from tuckertree import Budget, Energy
from tuckertree.calibration import CalibrationWarning
from tuckertree.calibration.pairs import APART
from tuckertree.onnx_models import compress_onnx

onnx = pytest.importorskip("onnx")
helper = onnx.helper
RNG = np.random.default_rng(0)
IMAGES = RNG.random((48, 3, 12, 12), dtype=np.float32)


def weights(name: str, *shape: int):
    return onnx.numpy_helper.from_array(
        RNG.standard_normal(shape).astype(np.float32) / np.sqrt(np.prod(shape[1:])).astype(np.float32), name
    )


def save(path, nodes, constants, shape):
    """A model of one input of images."""
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "g",
        [value("x", onnx.TensorProto.FLOAT, ["N", 3, 12, 12])],
        [value("y", onnx.TensorProto.FLOAT, shape)],
        constants,
    )
    onnx.save(helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)]), path)
    return path


def two_convolutions(path):
    constants = [weights("w", 32, 3, 3, 3), weights("v", 32, 32, 3, 3), weights("b", 32)]
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], name="first"),
        helper.make_node("Relu", ["a"], ["r"]),
        helper.make_node("Conv", ["r", "v", "b"], ["y"], name="second"),
    ]
    return save(path, nodes, constants, ["N", 32, 8, 8])


@pytest.mark.filterwarnings("ignore:fewer calibration patches")
@pytest.mark.parametrize(
    "source",
    [
        [{"x": IMAGES[:20]}, {"x": IMAGES[20:]}],
        [{"x": torch.from_numpy(IMAGES)}],
        IMAGES,
        [IMAGES],
        [(IMAGES, np.zeros(48, np.float32))],
    ],
)
def test_arrays_are_taken_as_tensors_are(tmp_path, source):
    path = two_convolutions(tmp_path / "model.onnx")
    result = compress_onnx(path, tmp_path / "small.onnx", Budget(macs=0.6), calibration=source)
    assert result.output.outputs.error < 0.2


@pytest.mark.filterwarnings("ignore::tuckertree.calibration.CalibrationWarning")
@pytest.mark.parametrize(
    "images", [0 * IMAGES, IMAGES[:1], np.full_like(IMAGES, 0.7), IMAGES[:1].repeat(99, 0)]
)
@pytest.mark.parametrize("rule", [Budget(macs=0.6), Energy(0.7)])
def test_images_that_hardly_differ_calibrate(tmp_path, images, rule):
    path = two_convolutions(tmp_path / "model.onnx")
    assert compress_onnx(path, tmp_path / "small.onnx", rule, calibration=images).plan.changes


def choosing(path, chosen: str):
    """Rows of a matrix product: the best of each image, those above a number, or a fixed half of them."""
    flat = onnx.numpy_helper.from_array(np.array([-1, 32]), "flat")
    constants = [weights("w", 32, 3, 3, 3), weights("v", 32, 32, 3, 3), weights("m", 32, 32)]
    numbers = {
        "k": np.array([64]),
        "fixed": np.arange(0, 64, 2),
        "axis": np.array([1]),
        "level": np.float32([1.5]),
    }
    constants += [flat, *(onnx.numpy_helper.from_array(v, k) for k, v in numbers.items())]
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], name="first"),
        helper.make_node("Relu", ["a"], ["r"]),
        helper.make_node("Conv", ["r", "v"], ["c"], name="second"),
        helper.make_node("Transpose", ["c"], ["t"], perm=[0, 2, 3, 1]),
        helper.make_node("Reshape", ["t", "flat"], ["rows"]),
        helper.make_node("ReduceSum", ["rows", "axis"], ["sums"], keepdims=0),
    ]
    if chosen == "best":
        nodes += [
            helper.make_node("TopK", ["sums", "k"], ["values", "best"]),
            helper.make_node("Gather", ["rows", "best"], ["some"]),
        ]
    elif chosen == "above":
        nodes += [
            helper.make_node("Greater", ["sums", "level"], ["above"]),
            helper.make_node("Compress", ["rows", "above"], ["some"], axis=0),
        ]
    else:
        nodes += [helper.make_node("Gather", ["rows", "fixed"], ["some"])]
    nodes += [helper.make_node("MatMul", ["some", "m"], ["y"], name="product")]
    return save(path, nodes, constants, ["R", 32])


@pytest.mark.filterwarnings("ignore:fewer calibration patches")
@pytest.mark.parametrize("chosen", ["best", "above", "fixed"])
def test_a_layer_that_sees_chosen_rows_is_fitted_to_the_originals_inputs(tmp_path, chosen):
    path = choosing(tmp_path / "model.onnx", chosen)
    result = compress_onnx(path, tmp_path / "small.onnx", Energy(0.6), calibration=IMAGES)
    (row,) = [layer for layer in result.plan.layers if layer.name == "product"]
    assert (f"fitted to the original's inputs: {APART}" in row.reason) == (chosen != "fixed")


def test_a_layer_that_sees_no_row_is_left_as_decomposed_and_the_plan_says_so(tmp_path):
    path = choosing(tmp_path / "model.onnx", "above")
    model = onnx.load(path)
    (level,) = [tensor for tensor in model.graph.initializer if tensor.name == "level"]
    level.CopyFrom(onnx.numpy_helper.from_array(np.float32([1e9]), "level"))
    onnx.save(model, path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CalibrationWarning)
        result = compress_onnx(path, tmp_path / "small.onnx", Energy(0.6), calibration=IMAGES)
    (row,) = [layer for layer in result.plan.layers if layer.name == "product"]
    assert "as decomposed: not called on the calibration images" in row.reason
