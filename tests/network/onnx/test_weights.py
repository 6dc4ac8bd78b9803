"""Weights wherever they come from: compressed exactly, or left dense with the reason."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import tuckertree as tt
from tests.network.onnx.cases import (
    FULL,
    TensorProto,
    constant,
    helper,
    numbers,
    onnx,
    open_layers,
    outputs_of,
    rewritten,
    save,
    tensor,
    value,
)
from tests.network.onnx.test_nodes import chain_of
from tuckertree.onnx_models import compress_onnx

W = numbers(8, 6, 3, 3, seed=3)
FEED = {"x": numbers(1, 6, 9, 8)}


def integers(name, *numbers):
    return tensor(name, np.array(numbers, dtype=np.int64))


def node(kind, *inputs, output="v", **attributes):
    return helper.make_node(kind, [*inputs], [output], name=f"make_{output}", **attributes)


def convolution(path, nodes, tensors, weight="v", **options):
    """A model of one convolution whose weight the nodes make."""
    main = helper.make_node("Conv", ["x", weight], ["y"], name="layer", pads=[1] * 4)
    return save(path, [*nodes, main], [value("x", ["n", 6, 9, 8])], [value("y", 4)], tensors, **options)


MADE = {
    "Transpose": ([node("Transpose", "w", perm=[3, 2, 0, 1])], [tensor("w", W.transpose(2, 3, 1, 0))]),
    "Transpose without perm": ([node("Transpose", "w")], [tensor("w", W.T)]),
    "Reshape": ([node("Reshape", "w", "s")], [tensor("w", W.reshape(8, 54)), integers("s", 0, -1, 3, 3)]),
    "Reshape by a Constant": (
        [constant("s", np.array([8, 6, 3, 3])), node("Reshape", "w", "s")],
        [tensor("w", W.reshape(48, 9))],
    ),
    "Reshape by a constant that is computed": (
        [
            helper.make_node("Constant", [], ["a"], value_ints=[8, 6]),
            helper.make_node("Concat", ["a", "b"], ["s"], axis=0),
            node("Reshape", "w", "s"),
        ],
        [tensor("w", W.reshape(48, 9)), integers("b", 3, 3)],
    ),
    "Unsqueeze": ([node("Unsqueeze", "w", "a")], [tensor("w", W[..., 0]), integers("a", -1)]),
    "Squeeze": ([node("Squeeze", "w", "a")], [tensor("w", W[:, None, ..., None]), integers("a", 1, 5)]),
    "Squeeze of all": ([node("Squeeze", "w")], [tensor("w", W[:, None])]),
    "Identity": ([node("Identity", "w")], [tensor("w", W)]),
    "Cast": ([node("Cast", "w", to=TensorProto.FLOAT)], [tensor("w", W.astype(np.float64))]),
    "a chain": (
        [
            node("Identity", "w", output="a"),
            node("Transpose", "a", output="b", perm=[1, 0]),
            node("Cast", "b", output="c", to=TensorProto.DOUBLE),
            node("Reshape", "c", "s", output="d"),
            node("Cast", "d", to=TensorProto.FLOAT),
        ],
        [tensor("w", W.reshape(8, 54).T), integers("s", 8, 6, 3, 3)],
    ),
    "numbers in a Constant": (
        [
            helper.make_node("Constant", [], ["w"], value_floats=W.ravel().tolist()),
            helper.make_node("Constant", [], ["s"], value_ints=[8, 6, 3, 3]),
            node("Reshape", "w", "s"),
        ],
        [],
    ),
}


@pytest.mark.parametrize("name", MADE)
def test_nodes_before_a_weight_go_with_it(name, tmp_path):
    nodes, tensors = MADE[name]
    file, graph, found = open_layers(convolution(tmp_path / "m.onnx", nodes, tensors))
    assert found.layers["layer"].weight.dims[:2] == [8, 6]
    whole = rewritten(file, graph, found, {"layer": chain_of(file, found, FULL)})
    expected, output = (outputs_of(m, FEED)[0] for m in (file.path, whole))
    np.testing.assert_allclose(output, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())
    assert {n.op_type for n in whole.graph.node} <= {"Conv"}
    assert {t.name for t in whole.graph.initializer} == {n.input[1] for n in whole.graph.node}
    result = compress_onnx(file.path, tmp_path / "small.onnx", tt.Ranks({"*": 3}))
    assert open_layers(tmp_path / "small.onnx")[2].inventory.parameters == result.plan.parameters[1]
    made = [n.op_type for n in nodes if n.op_type != "Constant"]
    assert all(kind in next(n for n in result.output.notes if "folded" in n) for kind in made)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=15)
@given(st.data())
def test_any_order_of_axes_and_splits_is_undone(tmp_path, data):
    perm = data.draw(st.permutations(range(4)))
    stored = W.transpose(np.argsort(perm))
    places = sorted(data.draw(st.sets(st.integers(0, 4), max_size=2)))
    axes = [place + number for number, place in enumerate(places)]
    nodes = [node("Transpose", "w", output="t" if axes else "v", perm=list(perm))]
    tensors = [tensor("w", stored)]
    if axes:
        nodes += [node("Unsqueeze", "t", "a", output="u"), node("Squeeze", "u", "a")]
        tensors.append(integers("a", *axes))
    file, graph, found = open_layers(convolution(tmp_path / "m.onnx", nodes, tensors))
    whole = rewritten(file, graph, found, {"layer": chain_of(file, found, FULL)})
    expected, output = (outputs_of(m, FEED)[0] for m in (file.path, whole))
    np.testing.assert_allclose(output, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("attributes", [{}, {"transB": 1}, {"transA": 1, "alpha": 0.5, "beta": -2.0}])
def test_products_with_a_transposed_weight(attributes, tmp_path):
    a = (6, 5) if attributes.get("transA") else (5, 6)
    shape = (6, 8) if attributes.get("transB") else (8, 6)  # stored the other way round
    nodes = [
        node("Transpose", "w", perm=[1, 0]),
        helper.make_node("Gemm", ["x", "v", "b"], ["y"], name="layer", **attributes),
    ]
    tensors = [tensor("w", numbers(*shape)), tensor("b", numbers(8, seed=2))]
    path = save(tmp_path / "m.onnx", nodes, [value("x", a)], [value("y", 2)], tensors)
    file, graph, found = open_layers(path)
    whole = rewritten(file, graph, found, {"layer": chain_of(file, found, FULL)})
    feed = {"x": numbers(*a, seed=5)}
    np.testing.assert_allclose(outputs_of(whole, feed)[0], outputs_of(path, feed)[0], rtol=1e-4, atol=1e-4)


def test_a_dense_layer_keeps_the_nodes_before_its_weight(tmp_path):
    nodes, tensors = MADE["a chain"]
    nodes = [*nodes, helper.make_node("Conv", ["x", "k"], ["z"], name="other", pads=[1] * 4)]
    path = convolution(tmp_path / "m.onnx", nodes, [*tensors, tensor("k", W + 1)])
    result = compress_onnx(path, tmp_path / "small.onnx", tt.Energy(0.5), exclude="layer", first="ht2")
    assert [layer.name for layer in result.plan.compressed] == ["other"]
    assert result.output.notes == ()
    before, after = onnx.load(path).graph, onnx.load(tmp_path / "small.onnx").graph
    assert [n for n in after.node if not n.name.startswith("other")] == [
        n for n in before.node if n.name != "other"
    ]
    assert [*after.initializer][: len(tensors)] == [*before.initializer][:-1]


def test_weights_in_half_precision_stay_so(tmp_path):
    """What the file holds in half precision and computes with in single."""
    nodes = [node("Cast", "w", to=TensorProto.FLOAT)]
    path = convolution(tmp_path / "m.onnx", nodes, [tensor("w", W.astype(np.float16))])
    result = compress_onnx(path, tmp_path / "small.onnx", tt.Ranks({"*": 3}))
    small = onnx.load(tmp_path / "small.onnx")
    assert {t.data_type for t in small.graph.initializer} == {TensorProto.FLOAT16}
    held = [sum(len(t.raw_data) for t in proto.graph.initializer) for proto in (onnx.load(path), small)]
    assert held[1] < held[0]
    dense = open_layers(tmp_path / "small.onnx")[2]
    assert dense.inventory.parameters == result.plan.parameters[1]
    assert all(not layer.skip_reason for layer in dense.inventory.layers)
    assert result.output.error == pytest.approx(result.errors["layer"], rel=0.3)


SHARED = {
    "a transposed one": [
        node("Transpose", "w", perm=[0, 1, 3, 2]),
        helper.make_node("Conv", ["x", "w"], ["other"], pads=[1] * 4),
    ],
    "its transposed": [
        node("Transpose", "w", perm=[0, 1, 3, 2]),
        helper.make_node("Neg", ["v"], ["other"]),
    ],
    "an output": [node("Identity", "w"), helper.make_node("Identity", ["v"], ["other"])],
}


@pytest.mark.parametrize("name", SHARED)
def test_weights_that_others_use_too_stay(name, tmp_path):
    path = convolution(tmp_path / "m.onnx", SHARED[name], [tensor("w", W)])
    proto = onnx.load(path)
    proto.graph.output.append(value("other", 4))
    onnx.save(proto, path)
    layers = open_layers(path)[2].inventory.layers
    assert {layer.skip_reason for layer in layers} == {"shares its weight with another node"}


def test_the_shape_that_two_weights_are_given_is_not_shared_weight(tmp_path):
    nodes = [
        node("Reshape", "w", "s"),
        node("Reshape", "k", "s", output="u"),
        helper.make_node("Conv", ["x", "u"], ["z"], name="other", pads=[1] * 4),
    ]
    tensors = [tensor("w", W.reshape(8, 54)), tensor("k", W.reshape(8, 54)), integers("s", 8, 6, 3, 3)]
    path = convolution(tmp_path / "m.onnx", nodes, tensors)
    result = compress_onnx(path, tmp_path / "small.onnx", tt.Ranks({"layer": 3}), exclude="other")
    assert [layer.name for layer in result.plan.compressed] == ["layer"]
    left = {t.name for t in onnx.load(tmp_path / "small.onnx").graph.initializer}
    assert {"k", "s"} <= left
    assert "w" not in left


def sparse(name, array):
    places = np.flatnonzero(array)
    return helper.make_sparse_tensor(
        tensor(name, array.ravel()[places]), integers(f"{name}_places", *places), list(array.shape)
    )


def quantized(kind):
    scale = tensor("scale", np.float32(0.1))
    steps = {
        "DequantizeLinear": [node("DequantizeLinear", "w", "scale")],
        "QuantizeLinear": [
            node("QuantizeLinear", "w", "scale", output="q"),
            node("DequantizeLinear", "q", "scale", output="d"),
            node("Identity", "d"),
        ],
    }[kind]
    weight = (W * 10).astype(np.int8) if kind == "DequantizeLinear" else W
    return steps, [tensor("w", weight), scale]


LEFT = {
    "goes through Mul": ([node("Mul", "w", "w2")], [tensor("w", W), tensor("w2", W)]),
    "goes through Concat": (
        [node("Concat", "w", "w2", axis=0)],
        [tensor("w", W[:4]), tensor("w2", W[4:])],
    ),
    "goes through Slice": (
        [node("Transpose", "w", output="t", perm=[0, 1, 3, 2]), node("Slice", "t", "a", "b")],
        [tensor("w", np.concatenate([W, W])), integers("a", 0), integers("b", 8)],
    ),
    "quantized (DequantizeLinear)": quantized("DequantizeLinear"),
    "quantized (QuantizeLinear)": quantized("QuantizeLinear"),
    "of a type": (
        [node("Cast", "w", to=TensorProto.FLOAT)],
        [tensor("w", (W * 100).astype(np.int8))],
    ),
    "is sparse": (
        [helper.make_node("Constant", [], ["v"], sparse_value=sparse("", np.where(W > 1, W, 0)))],
        [],
    ),
}


@pytest.mark.parametrize("reason", LEFT)
def test_weights_that_are_made_otherwise_are_listed(reason, tmp_path):
    nodes, tensors = LEFT[reason]
    path = convolution(tmp_path / "m.onnx", nodes, tensors)
    (layer,) = open_layers(path)[2].inventory.layers
    assert reason in layer.skip_reason
    assert layer.spec.kernel_shape == (8, 6, 3, 3)
    with pytest.raises(tt.UnreachableTargetError, match="all 1 layers stay dense"):
        compress_onnx(path, tmp_path / "small.onnx", tt.Energy(0.5))


def test_a_sparse_initializer_is_listed(tmp_path):
    path = convolution(tmp_path / "m.onnx", [], [], weight="w")
    proto = onnx.ModelProto.FromString(path.read_bytes())
    proto.graph.sparse_initializer.append(sparse("w", np.where(W > 1, W, 0)))
    path.write_bytes(proto.SerializeToString())
    (layer,) = open_layers(path)[2].inventory.layers
    assert layer.skip_reason == "its weight is sparse"


@pytest.mark.parametrize("behind", [False, True])
def test_an_initializer_that_a_caller_may_replace_stays_and_so_does_its_input(behind, tmp_path):
    nodes = [node("Identity", "w")] if behind else []
    nodes.append(helper.make_node("Conv", ["x", "v" if behind else "w", "b"], ["c"], name="layer"))
    nodes.append(helper.make_node("Conv", ["c", "k"], ["y"], name="second"))
    inputs = [value("x", [1, 6, 9, 8]), value("w", W.shape), value("b", [8])]
    tensors = [tensor("w", W), tensor("b", numbers(8)), tensor("k", numbers(16, 8, 3, 3))]
    path = save(tmp_path / "m.onnx", nodes, inputs, [value("y", 4)], tensors)
    images = np.stack([numbers(6, 9, 8, seed=k) for k in range(16)])
    result = compress_onnx(
        path, tmp_path / "small.onnx", tt.Energy(0.5), calibration=[{"x": x[None]} for x in images]
    )
    before, after = onnx.load(path), onnx.load(tmp_path / "small.onnx")
    assert after.graph.input == before.graph.input
    assert [t for t in after.graph.initializer if t.name in "wb"] == [*before.graph.initializer][:2]
    reasons = {layer.name: layer.reason for layer in result.plan.layers}
    assert reasons["layer"] == "its weight is an input too, which a caller may replace"
    assert [layer.name for layer in result.plan.compressed] == ["second"]


@pytest.mark.filterwarnings("ignore:fitting does not bring")  # of noise there is nothing to learn
def test_a_bias_that_a_caller_may_replace_is_not_corrected(tmp_path):
    nodes = [helper.make_node("Conv", ["x", "w", "b"], ["y"], name="layer")]
    inputs = [value("x", [1, 6, 9, 8]), value("b", [8])]
    path = save(
        tmp_path / "m.onnx", nodes, inputs, [value("y", 4)], [tensor("w", W), tensor("b", numbers(8))]
    )
    images = [{"x": numbers(1, 6, 9, 8, seed=k)} for k in range(16)]
    compress_onnx(path, tmp_path / "small.onnx", tt.Ranks({"*": 3}), calibration=images)
    before, after = (onnx.load(p).graph for p in (path, tmp_path / "small.onnx"))
    assert next(t for t in after.initializer if t.name == "b") == before.initializer[1]


def test_a_bias_written_as_numbers_is_corrected_in_its_place(tmp_path):
    nodes = [
        helper.make_node("Constant", [], ["b"], value_floats=[1.0] * 8),
        helper.make_node("Conv", ["x", "w", "b"], ["y"], name="layer"),
    ]
    path = save(tmp_path / "m.onnx", nodes, [value("x", ["n", 6, 9, 8])], [value("y", 4)], [tensor("w", W)])
    images = np.concatenate([numbers(1, 6, 9, 8, seed=k) + 1 for k in range(32)])
    small = tmp_path / "small.onnx"
    compress_onnx(path, small, tt.Ranks({"*": 2}), calibration=[{"x": images}])
    before, after = (outputs_of(p, {"x": images})[0].mean((0, 2, 3)) for p in (path, small))
    np.testing.assert_allclose(after, before, atol=0.05 * np.abs(before).max())


@pytest.mark.parametrize("kind", [np.float32, np.float16])
def test_weights_behind_nodes_are_fitted_to_images(kind, tmp_path):
    nodes = [
        node("Cast", "w", output="c", to=TensorProto.FLOAT),
        node("Transpose", "c", perm=[1, 0, 2, 3]),
        helper.make_node("Conv", ["x", "v", "b"], ["h"], name="layer"),
        node("Reshape", "k", "s", output="u"),
        helper.make_node("Conv", ["h", "u"], ["y"], name="second"),
    ]
    tensors = [
        tensor("w", W.transpose(1, 0, 2, 3).astype(kind)),
        tensor("b", numbers(8)),
        tensor("k", numbers(16, 72)),
        integers("s", 16, 8, 3, 3),
    ]
    path = save(tmp_path / "m.onnx", nodes, [value("x", ["n", 6, 9, 8])], [value("y", 4)], tensors)
    images = numbers(64, 6, 9, 8, seed=7).cumsum(2).cumsum(3)
    errors = []
    for calibration in (None, [{"x": images[:48]}]):
        small = tmp_path / f"{len(errors)}.onnx"
        compress_onnx(path, small, tt.Ranks({"*": 3}), calibration=calibration)
        y, z = (outputs_of(p, {"x": images[48:]})[0] for p in (path, small))
        errors.append(np.linalg.norm(z - y) / np.linalg.norm(y))
    assert errors[1] < 0.8 * errors[0]


def test_external_weights_behind_nodes(tmp_path):
    nodes, tensors = MADE["Transpose"]
    path = convolution(tmp_path / "m.onnx", nodes, tensors)
    outside = tmp_path / "outside.onnx"
    onnx.save(onnx.load(path), outside, save_as_external_data=True, location="outside.bin", size_threshold=0)
    written = [tmp_path / "a.onnx", tmp_path / "b.onnx"]
    for model, small in zip((path, outside), written, strict=True):
        compress_onnx(model, small, tt.Ranks({"*": 3}))
    first, second = (outputs_of(small, FEED)[0] for small in written)
    np.testing.assert_array_equal(first, second)
