"""Every kind of node with every attribute: a chain in its place does the same."""

from typing import NamedTuple

import numpy as np
import pytest
import torch

from tests.network.onnx.cases import (
    FULL,
    TensorProto,
    constant,
    helper,
    numbers,
    open_layers,
    outputs_of,
    rewritten,
    save,
    tensor,
    value,
)
from tuckertree.calibration.patches import channels_first, input_patches
from tuckertree.core.layers import densify, factorize
from tuckertree.network.onnx import OnnxModule
from tuckertree.network.onnx.graph import Graph


class Node(NamedTuple):
    """A node, the shapes of its input and weight, and whether it has a bias."""

    kind: str
    x: tuple[int, ...]
    w: tuple[int, ...]
    attributes: dict
    bias: tuple[int, ...] | None = None
    opset: int = 17


NODES = {
    "conv": Node("Conv", (2, 6, 9, 8), (8, 6, 3, 3), {"pads": [1, 1, 1, 1]}, (8,)),
    "no attributes": Node("Conv", (1, 6, 9, 8), (8, 6, 3, 3), {}),
    "asymmetric pads": Node(
        "Conv", (1, 6, 9, 8), (8, 6, 3, 5), {"pads": [0, 1, 2, 3], "strides": [2, 1]}, (8,)
    ),
    "same upper": Node(
        "Conv", (1, 6, 9, 8), (8, 6, 3, 4), {"auto_pad": "SAME_UPPER", "strides": [2, 2]}, (8,)
    ),
    "same lower": Node("Conv", (1, 6, 9, 8), (8, 6, 4, 2), {"auto_pad": "SAME_LOWER", "strides": [2, 3]}),
    "valid": Node("Conv", (1, 6, 9, 8), (8, 6, 3, 3), {"auto_pad": "VALID", "kernel_shape": [3, 3]}),
    "dilations and groups": Node(
        "Conv", (1, 8, 11, 12), (6, 4, 3, 3), {"dilations": [2, 3], "group": 2, "pads": [2, 0, 1, 3]}, (6,)
    ),
    "pointwise with a stride": Node(
        "Conv", (1, 6, 9, 8), (8, 6, 1, 1), {"strides": [2, 3], "pads": [1, 0, 0, 1]}
    ),
    "pointwise, same": Node(
        "Conv", (1, 6, 9, 8), (8, 6, 1, 1), {"strides": [2, 3], "auto_pad": "SAME_UPPER"}
    ),
    "one row": Node("Conv", (1, 6, 9, 8), (8, 6, 1, 5), {"strides": [2, 1], "pads": [1, 2, 0, 2]}, (8,)),
    "one dimension": Node("Conv", (1, 6, 20), (8, 6, 5), {"strides": [2], "pads": [3, 1]}, (8,)),
    "three dimensions": Node("Conv", (1, 4, 6, 5, 7), (6, 4, 3, 2, 3), {"pads": [1, 0, 2, 1, 1, 0]}, (6,)),
    "transposed": Node(
        "ConvTranspose", (1, 6, 5, 4), (6, 8, 3, 3), {"strides": [2, 2], "pads": [1, 1, 1, 1]}, (8,)
    ),
    "transposed, output_padding": Node(
        "ConvTranspose",
        (1, 6, 5, 4),
        (6, 4, 3, 4),
        {"strides": [2, 3], "pads": [1, 0, 0, 2], "output_padding": [1, 2], "group": 2, "dilations": [2, 1]},
        (8,),
    ),
    "transposed, same": Node(
        "ConvTranspose", (1, 6, 5, 4), (6, 8, 3, 3), {"strides": [2, 2], "auto_pad": "SAME_UPPER"}
    ),
    "transposed pointwise": Node("ConvTranspose", (1, 6, 5, 4), (6, 8, 1, 1), {"strides": [2, 1]}),
    "gemm": Node("Gemm", (5, 6), (6, 8), {}, (8,)),
    "gemm with everything": Node(
        "Gemm", (6, 5), (8, 6), {"transA": 1, "transB": 1, "alpha": 0.5, "beta": -2.0}, (8,)
    ),
    "gemm with a row of biases": Node("Gemm", (5, 6), (6, 8), {"alpha": 3.0}, (1, 8)),
    "gemm with a matrix of biases": Node("Gemm", (5, 6), (8, 6), {"transB": 1}, (5, 8)),
    "gemm without C": Node("Gemm", (5, 6), (6, 8), {}),
    "gemm, opset 9": Node("Gemm", (5, 6), (6, 8), {"alpha": 2.0}, (8,), 9),
    "matmul": Node("MatMul", (2, 3, 6), (6, 8), {}),
    "matmul with a vector": Node("MatMul", (6,), (6, 8), {}),
}


def write(path, node, weight=None, dtype=np.float32, *, as_constants=False, **options):
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    values = {"w": (numbers(*node.w, seed=3) if weight is None else weight).astype(dtype)}
    if node.bias:
        values["b"] = numbers(*node.bias, seed=4, dtype=dtype)
    main = helper.make_node(
        node.kind, ["x", *values], ["y"], name="layer", doc_string="about", **node.attributes
    )
    nodes = [constant(n, v) for n, v in values.items()] if as_constants else []
    tensors = [] if as_constants else [tensor(n, v) for n, v in values.items()]
    outputs = [value("y", len(node.x), kind)]
    return save(
        path, [*nodes, main], [value("x", node.x, kind)], outputs, tensors, opset=node.opset, **options
    )


def chain_of(file, found, rank):
    """The node's layer as a chain of one rank at each cut."""
    module = OnnxModule(file, Graph(file.proto), found.layers).get_submodule("layer")
    (layer,) = found.layers.values()
    assert layer.layer.skip_reason == ""
    nontrivial = len(layer.layer.spec.nontrivial_modes)
    method = "ht2" if nontrivial else "svd"
    return factorize(module, method, (rank,) * (nontrivial + 1))


def dense_weight(node, chain):
    weight = densify(chain).weight.detach().numpy()
    is_product = node.kind in ("Gemm", "MatMul")
    return weight.T if is_product and not node.attributes.get("transB") else weight


@pytest.mark.parametrize("name", NODES)
@pytest.mark.parametrize("rank", [2, FULL])
def test_a_chain_does_what_its_node_did(name, rank, tmp_path):
    """At full ranks what the node did; at low ones what the node would do with the chain's kernel."""
    node = NODES[name]
    file, graph, found = open_layers(write(tmp_path / "m.onnx", node))
    chain = chain_of(file, found, rank)
    smaller = rewritten(file, graph, found, {"layer": chain})
    feed = {"x": numbers(*node.x, seed=9)}
    weight = None if rank == FULL else dense_weight(node, chain)
    expected = outputs_of(write(tmp_path / "dense.onnx", node, weight), feed)[0]
    found_output = outputs_of(smaller, feed)[0]
    assert found_output.shape == expected.shape
    np.testing.assert_allclose(found_output, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())
    assert [tuple(t.dims) for t in smaller.graph.initializer if t.name == "w"] == []
    assert smaller.graph.node[-1].doc_string == "about"
    assert [o.version for o in smaller.opset_import] == [node.opset]


@pytest.mark.parametrize("name", ["conv", "dilations and groups", "transposed", "matmul", "gemm"])
def test_low_ranks_agree_with_the_chain_in_torch(name, tmp_path):
    node = NODES[name]
    if len(set(node.attributes.get("pads", ()))) > 1:
        node = node._replace(attributes={**node.attributes, "pads": [2, 1, 2, 1]})
    file, graph, found = open_layers(write(tmp_path / "m.onnx", node))
    chain = chain_of(file, found, 2)
    x = numbers(*node.x, seed=9)
    output = outputs_of(rewritten(file, graph, found, {"layer": chain}), {"x": x})[0]
    np.testing.assert_allclose(output, chain(torch.from_numpy(x)).detach().numpy(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("conv", np.float16),
        ("transposed", np.float16),
        ("gemm with everything", np.float16),
        ("gemm with everything", np.float64),  # of the convolutions ONNX Runtime has none in float64
    ],
)
def test_weights_keep_their_type(name, dtype, tmp_path):
    node = NODES[name]
    file, graph, found = open_layers(write(tmp_path / "m.onnx", node, dtype=dtype))
    smaller = rewritten(file, graph, found, {"layer": chain_of(file, found, FULL)})
    kind = TensorProto.FLOAT16 if dtype == np.float16 else TensorProto.DOUBLE
    assert {t.data_type for t in smaller.graph.initializer} == {kind}
    feed = {"x": numbers(*node.x, seed=9, dtype=dtype)}
    expected, output = (outputs_of(m, feed)[0].astype(float) for m in (file.path, smaller))
    tolerance = 2e-2 if dtype == np.float16 else 1e-9
    np.testing.assert_allclose(output, expected, rtol=tolerance, atol=tolerance * np.abs(expected).max())


@pytest.mark.parametrize("name", [name for name, node in NODES.items() if "Conv" in node.kind])
def test_patches_are_what_the_node_sees(name, tmp_path):
    """However the padding is given: calibration fits to these patches."""
    node = NODES[name]._replace(bias=None)
    file, _, found = open_layers(write(tmp_path / "m.onnx", node))
    (layer,) = found.inventory.layers
    (call,) = layer.calls
    x = numbers(*node.x, seed=9)
    positions = torch.arange(int(np.prod(call.size_out)))
    patches = input_patches(torch.from_numpy(x), layer.spec, call.size_out, positions)
    patches = channels_first(patches, int(np.prod(layer.spec.kernel_size)), 2)
    kernel = layer.spec.kernel(torch.from_numpy(numbers(*node.w, seed=3)))
    product = torch.einsum("gnk,gtk->ngt", patches, kernel.flatten(2)).reshape(len(x), len(positions), -1)
    expected = outputs_of(file.path, {"x": x})[0].reshape(len(x), layer.spec.out_channels, -1)
    np.testing.assert_allclose(product.mT.numpy(), expected, rtol=1e-4, atol=1e-4)


def test_weights_in_constant_nodes(tmp_path):
    node = NODES["asymmetric pads"]
    file, graph, found = open_layers(write(tmp_path / "m.onnx", node, as_constants=True))
    smaller = rewritten(file, graph, found, {"layer": chain_of(file, found, FULL)})
    kept = [n.output[0] for n in smaller.graph.node if n.op_type == "Constant"]
    assert kept == ["b"]
    feed = {"x": numbers(*node.x, seed=9)}
    expected, output = (outputs_of(m, feed)[0] for m in (file.path, smaller))
    np.testing.assert_allclose(output, expected, rtol=1e-4, atol=1e-4)


def test_initializers_are_inputs_where_the_format_is_old_enough_to_ask_for_it(tmp_path):
    node = NODES["conv"]
    inputs = [value("x", node.x), value("w", node.w), value("b", node.bias)]
    tensors = [tensor("w", numbers(*node.w)), tensor("b", numbers(*node.bias))]
    main = helper.make_node("Conv", ["x", "w", "b"], ["y"], name="layer", **node.attributes)
    path = save(tmp_path / "m.onnx", [main], inputs, [value("y", 4)], tensors, opset=8, ir_version=3)
    file, graph, found = open_layers(path)
    smaller = rewritten(file, graph, found, {"layer": chain_of(file, found, FULL)})
    assert {v.name for v in smaller.graph.input} == {"x", *(t.name for t in smaller.graph.initializer)}
    feed = {"x": numbers(*node.x, seed=9)}
    expected, output = (outputs_of(m, feed)[0] for m in (path, smaller))
    np.testing.assert_allclose(output, expected, rtol=1e-4, atol=1e-4)


def test_new_names_are_not_those_that_are_there(tmp_path):
    node = NODES["conv"]
    main = helper.make_node("Conv", ["x", "w"], ["layer/reduce/output"], name="layer", pads=[1] * 4)
    after = helper.make_node("Relu", ["layer/reduce/output"], ["layer/reduce/weight"], name="layer/expand")
    path = save(
        tmp_path / "m.onnx",
        [main, after],
        [value("x", node.x)],
        [value("layer/reduce/weight", 4)],
        [tensor("w", numbers(*node.w))],
    )
    file, graph, found = open_layers(path)
    smaller = rewritten(file, graph, found, {"layer": chain_of(file, found, FULL)})
    names = [n.name for n in smaller.graph.node]
    assert len({*names}) == len(names) == 5
    assert names[-1] == "layer/expand"
    feed = {"x": numbers(*node.x, seed=9)}
    expected, output = (outputs_of(m, feed)[0] for m in (path, smaller))
    np.testing.assert_allclose(output, expected, rtol=1e-4, atol=1e-4)


def conv(weight, name="layer", **attributes):
    return helper.make_node("Conv", ["x", weight], [f"{name}_y"], name=name, **attributes)


REFUSED = {
    "depthwise": ([conv("w", group=6)], (6, 1, 3, 3)),
    "shares its weight": ([conv("w"), conv("w", "other")], (8, 6, 3, 3)),
    "goes through Neg": ([helper.make_node("Neg", ["w"], ["v"]), conv("v")], (8, 6, 3, 3)),
    "its input is constant": (
        [constant("k", numbers(1, 6, 8, 8)), helper.make_node("Conv", ["k", "w"], ["layer_y"], name="layer")],
        (8, 6, 3, 3),
    ),
    "has output_shape": (
        [helper.make_node("ConvTranspose", ["x", "w"], ["layer_y"], name="layer", output_shape=[12, 12])],
        (6, 8, 5, 5),
    ),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_what_cannot_be_replaced_exactly_says_why(reason, tmp_path):
    nodes, shape = REFUSED[reason]
    path = save(
        tmp_path / "m.onnx",
        nodes,
        [value("x", [1, 6, 8, 8])],
        [value(f"{n.name}_y", 4) for n in nodes if n.name],
        [tensor("w", numbers(*shape))],
    )
    found = open_layers(path)[2]
    assert all(reason in layer.skip_reason for layer in found.inventory.layers)
    assert found.inventory.layers[0].name == "layer"


def test_macs_and_parameters_are_those_of_the_whole_graph(tmp_path):
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], name="a", strides=[2, 2]),
        helper.make_node("MatMul", ["c", "c"], ["y"], name="b"),
        constant("unused", numbers(5)),
    ]
    path = save(
        tmp_path / "m.onnx",
        nodes,
        [value("x", [1, 4, 9, 9])],
        [value("y", 4)],
        [tensor("w", numbers(6, 4, 3, 3))],
    )
    inventory = open_layers(path)[2].inventory
    assert inventory.macs == 6 * 16 * 36 + 6 * 4 * 4 * 4
    assert inventory.parameters == 6 * 4 * 9 + 5
    assert [layer.name for layer in inventory.layers] == ["a"]
