"""Inputs that are unlike the usual ones, and files that are no models."""

import numpy as np
import pytest

from tests.network.onnx.cases import TensorProto, helper, numbers, save, tensor, value
from tests.network.onnx.test_inputs import graph_of
from tuckertree import Budget
from tuckertree._base.errors import TuckertreeError, UsageError
from tuckertree.network.onnx.examples import example_feed
from tuckertree.network.onnx.files import read_onnx
from tuckertree.network.onnx.graph import Graph
from tuckertree.network.onnx.inputs import as_feed
from tuckertree.onnx_models import compress_onnx


def test_a_number_alone_before_the_images_is_not_the_batch(tmp_path):
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], pads=[1] * 4),
        helper.make_node("Mul", ["a", "scale"], ["y"]),
    ]
    inputs = [value("scale", []), value("x", ["N", 8, 6, 6])]
    path = save(tmp_path / "m.onnx", nodes, inputs, [value("y", 4)], [tensor("w", numbers(16, 8, 3, 3))])
    graph = Graph(read_onnx(path).proto)
    assert {name: x.shape for name, x in example_feed(graph).items()} == {"scale": (), "x": (1, 8, 6, 6)}
    images = [{"scale": np.float32(2), "x": numbers(4, 8, 6, 6, seed=seed)} for seed in range(32)]
    result = compress_onnx(
        path, tmp_path / "o.onnx", Budget(macs=0.5), calibration=images, methods=("ht2", "svd")
    )
    assert result.output.error < 1


@pytest.mark.parametrize("values", [np.array([[0.5]]), np.array([[300.0]]), np.array([["a"]])])
def test_values_that_a_type_of_integers_does_not_hold_are_refused(values):
    graph = graph_of(["N", 1], kinds=[TensorProto.INT8])
    with pytest.raises(UsageError, match="the input a takes int8"):
        as_feed(values, graph)
    assert as_feed(np.array([[3.0]]), graph)["a"].dtype == np.int8


@pytest.mark.parametrize("pair", [(5, 1), (0, float("inf")), (float("nan"), 1), (-1e39, 0)])
def test_a_range_of_random_numbers_is_one_of_their_type(pair):
    with pytest.raises(UsageError, match="is no range of float32"):
        example_feed(graph_of([1, 4]), input_values={"a": pair})


def test_inputs_that_are_no_tensors_are_named():
    graph = graph_of(["N", 1])
    sequence = helper.make_sequence_type_proto(helper.make_tensor_type_proto(TensorProto.FLOAT, [1]))
    graph.proto.graph.input[0].type.CopyFrom(sequence)
    with pytest.raises(TuckertreeError, match="takes a, which is no tensor"):
        example_feed(graph, (1,))


def test_a_layer_may_be_named_as_the_pattern_of_all(tmp_path):
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["a"], name="*"),
        helper.make_node("Conv", ["a", "w2"], ["y"], name="second"),
    ]
    tensors = [tensor("w1", numbers(16, 8, 3, 3)), tensor("w2", numbers(16, 16, 3, 3))]
    path = save(tmp_path / "m.onnx", nodes, [value("x", ["N", 8, 9, 9])], [value("y", 4)], tensors)
    result = compress_onnx(path, tmp_path / "o.onnx", Budget(macs=0.2))
    assert [layer.name for layer in result.plan.compressed] == ["*", "second"]


def test_a_file_larger_than_a_message_is_refused_unread(tmp_path):
    with (tmp_path / "m.onnx").open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(TuckertreeError, match="larger than any ONNX model"):
        read_onnx(tmp_path / "m.onnx")


def test_images_are_not_asked_for_where_they_were_given(tmp_path):
    nodes = [helper.make_node("Conv", ["x", "w"], ["y"])]
    inputs, outputs = [value("x", ["N", 16, 9, 9])], [value("y", 4)]
    path = save(tmp_path / "m.onnx", nodes, inputs, outputs, [tensor("w", numbers(32, 16, 3, 3))])
    for images in (None, numbers(64, 16, 9, 9)):
        output = tmp_path / f"{images is None}.onnx"
        result = compress_onnx(path, output, Budget(macs=0.1), calibration=images)
        (warning,) = result.warnings
        assert ("--calibration" in warning) == (images is None)
