"""Small ONNX graphs, made by hand."""

import numpy as np
import pytest
import torch

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from tuckertree.compression import OnnxNetwork  # noqa: E402
from tuckertree.compression.objectives import trade_off_curve  # noqa: E402
from tuckertree.network.onnx import OnnxModule  # noqa: E402
from tuckertree.network.onnx.examples import example_feed  # noqa: E402
from tuckertree.network.onnx.files import read_onnx  # noqa: E402
from tuckertree.network.onnx.graph import Graph  # noqa: E402
from tuckertree.network.onnx.layers import take_onnx_inventory  # noqa: E402
from tuckertree.network.onnx.rewriting import rewrite  # noqa: E402
from tuckertree.network.onnx.runtime import Session  # noqa: E402
from tuckertree.network.surgery import replace_layers  # noqa: E402

FULL = 10**6


def numbers(*shape, seed=0, dtype=np.float32):
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(dtype)


IMAGES = torch.from_numpy(numbers(64, 3, 16, 16, seed=20)).cumsum(2).cumsum(3) / 4


def tensor(name, values):
    return numpy_helper.from_array(np.ascontiguousarray(values), name)


def constant(name, values):
    """A Constant node."""
    return helper.make_node("Constant", [], [name], value=tensor("", values))


def value(name, shape, kind=TensorProto.FLOAT):
    """An input or output; a number in the place of the shape is how many open dimensions it has."""
    shape = [None] * shape if isinstance(shape, int) else shape
    return helper.make_tensor_value_info(name, kind, shape)


def save(path, nodes, inputs, outputs, tensors=(), *, opset=17, ir_version=8, **options):
    """Write a model of these nodes."""
    graph = helper.make_graph(nodes, "graph", inputs, outputs, tensors)
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version, **options
    )
    onnx.save(model, str(path))
    return path


def open_layers(path, input_size=None):
    """File, graph and layers of a model."""
    file = read_onnx(path)
    graph = Graph(file.proto)
    return file, graph, take_onnx_inventory(file, graph, example_feed(graph, input_size))


def onnx_inventory(path, **sizes):
    """Layers of a file."""
    return OnnxNetwork(path, **sizes).inventory()


def onnx_trade_off_curve(path, **options):
    """Curve of a file."""
    return trade_off_curve(OnnxNetwork(path), **options)


def rewritten(file, graph, found, chains):
    """A model with chains in the place of layers, by name."""
    module = OnnxModule(file, graph, found.layers)
    return rewrite(graph, found.layers, module, replace_layers(module, chains))


def outputs_of(model, feed):
    """Outputs of a file or a message in ONNX Runtime."""
    return list(Session(model if hasattr(model, "exists") else model.SerializeToString()).run(feed).values())


def network(path, *, size=16, opset=17, bias=True):
    """Two convolutions, a transposed one and a product, worth compressing: their weights are nearly of low rank."""

    def low_rank(outputs, inputs, *taps, seed):
        left, right = numbers(outputs, 3, seed=seed), numbers(3, inputs, *taps, seed=seed + 1)
        weight = np.tensordot(left, right, 1) / np.float32(3 * inputs * np.prod(taps)) ** 0.5
        return weight + np.float32(0.02) * numbers(outputs, inputs, *taps, seed=seed + 2)

    def row(name, length, seed):
        return [tensor(name, numbers(length, seed=seed))] if bias else []

    tensors = [
        tensor("w1", low_rank(24, 3, 3, 3, seed=1)),
        *row("b1", 24, 2),
        tensor("w2", low_rank(32, 24, 3, 3, seed=4)),
        *row("b2", 32, 5),
        tensor("w3", low_rank(32, 24, 2, 2, seed=7)),
        *row("b3", 24, 8),
        tensor("w4", low_rank(24, 16, seed=10)),
        tensor("axes", np.array([2, 3], dtype=np.int64)),
    ]
    given = ["b1", "b2", "b3"] if bias else ["", "", ""]
    nodes = [
        helper.make_node("Conv", ["x", "w1", given[0]][: 2 + bias], ["c1"], name="one", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c1"], ["r1"]),
        helper.make_node(
            "Conv", ["r1", "w2", given[1]][: 2 + bias], ["c2"], name="two", pads=[1, 1, 1, 1], strides=[2, 2]
        ),
        helper.make_node("Sigmoid", ["c2"], ["s"]),
        helper.make_node("Mul", ["c2", "s"], ["m"], name="silu"),
        helper.make_node(
            "ConvTranspose", ["m", "w3", given[2]][: 2 + bias], ["c3"], name="up", strides=[2, 2]
        ),
        helper.make_node("Relu", ["c3"], ["r3"]),
        helper.make_node("ReduceMean", ["r3"], ["p"], axes=[2, 3], keepdims=0),
        helper.make_node("MatMul", ["p", "w4"], ["y"], name="head"),
    ]
    return save(
        path,
        nodes,
        [value("x", ["batch", 3, size, size])],
        [value("y", ["batch", 16])],
        tensors[:-1],
        opset=opset,
    )
