"""An ONNX file as a module of torch: what it computes, what it holds, what is written back of it."""

import copy
import gc
import weakref

import numpy as np
import pytest
import torch

import tuckertree as tt
from tests.network.onnx.cases import (
    IMAGES,
    TensorProto,
    constant,
    helper,
    network,
    numbers,
    onnx,
    open_layers,
    outputs_of,
    save,
    tensor,
    value,
)
from tuckertree._base.errors import TuckertreeError
from tuckertree.core.layers import DENSE_TYPES
from tuckertree.network.onnx import OnnxModule, operators, steps
from tuckertree.network.onnx.graph import Graph
from tuckertree.network.onnx.rewriting import rewrite
from tuckertree.onnx_models import compress_onnx


def module_of(path, input_size=None):
    file, graph, found = open_layers(path, input_size)
    return OnnxModule(file, graph, found.layers).eval()


def assert_as_in_runtime(path, feed, tolerance=1e-4, input_size=None):
    """The module gives what ONNX Runtime gives, whole and node by node."""
    module = module_of(path, input_size)
    module.check(feed)
    with torch.no_grad():
        found = [y.numpy() for y in module(**feed).values()]
    for y, wanted in zip(found, outputs_of(path, feed), strict=True):
        np.testing.assert_allclose(
            y, wanted.astype(y.dtype), rtol=tolerance, atol=tolerance * (np.abs(wanted).max() + 1e-9)
        )


@pytest.mark.parametrize(
    "attributes",
    [
        {"pads": [1, 0, 2, 1]},
        {"pads": [0, 1, 0, 1], "strides": [2, 2]},
        {"auto_pad": "SAME_UPPER", "strides": [2, 3]},
        {"auto_pad": "SAME_LOWER", "strides": [3, 2]},
        {"auto_pad": "VALID"},
        {"group": 2, "pads": [1, 1, 1, 1]},
    ],
    ids=str,
)
@pytest.mark.parametrize("kind", ["Conv", "ConvTranspose"])
def test_layers_pad_as_their_nodes_do(kind, attributes, tmp_path):
    outputs = 8 // attributes.get("group", 1)
    node = helper.make_node(kind, ["x", "w", "b"], ["y"], name="layer", **attributes)
    tensors = [tensor("w", numbers(8, outputs, 3, 3)), tensor("b", numbers(8))]
    path = save(tmp_path / "m.onnx", [node], [value("x", ["n", 8, "h", "w"])], [value("y", 4)], tensors)
    size = (8, 11, 10)
    assert isinstance(module_of(path, size).get_submodule("layer"), DENSE_TYPES)
    for shape in ((2, *size), (1, 8, 14, 9)):
        assert_as_in_runtime(path, {"x": numbers(*shape)}, input_size=size)


@pytest.mark.parametrize("shared", [False, True])
def test_biases_that_are_a_layers_own_are_in_it_and_others_are_added(shared, tmp_path):
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["c"], name="a.conv", pads=[1] * 4),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("Conv", ["r", "v", "b" if shared else "d"], ["y"], name="b.conv"),
    ]
    tensors = [tensor("w", numbers(8, 8, 3, 3)), tensor("v", numbers(8, 8, 1, 1)), tensor("b", numbers(8))]
    tensors += [] if shared else [tensor("d", numbers(8, seed=4))]
    path = save(tmp_path / "m.onnx", nodes, [value("x", ["n", 8, 6, 6])], [value("y", 4)], tensors)
    assert_as_in_runtime(path, {"x": numbers(2, 8, 6, 6)})
    module = module_of(path)
    assert (module.get_submodule("a.conv").bias is None) == shared
    assert set(dict(module.named_modules())) == {"", "a.conv", "b.conv"}


@pytest.mark.parametrize("sign", ["Add", "Sub"])
def test_what_is_added_to_a_product_is_its_bias(sign, tmp_path):
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["p"], name="head"),
        helper.make_node(sign, ["p", "b"], ["y"]),
    ]
    tensors = [tensor("w", numbers(24, 16)), tensor("b", numbers(16))]
    path = save(tmp_path / "m.onnx", nodes, [value("x", ["n", 5, 24])], [value("y", 3)], tensors)
    assert_as_in_runtime(path, {"x": numbers(2, 5, 24)})
    assert module_of(path).get_submodule("head").bias is not None


def test_a_copy_with_other_values_is_written_where_they_differ_and_nowhere_else(tmp_path):
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], name="conv", pads=[1] * 4),
        helper.make_node("BatchNormalization", ["c", "s", "b", "m", "v"], ["n"], name="norm"),
        helper.make_node("Relu", ["n"], ["r"]),
        helper.make_node("ReduceMean", ["r"], ["p"], axes=[2, 3], keepdims=0),
        helper.make_node("Transpose", ["u"], ["t"], perm=[1, 0]),
        helper.make_node("MatMul", ["p", "t"], ["y"], name="head"),
    ]
    shapes = {"w": (8, 3, 3, 3), "s": (8,), "b": (8,), "m": (8,), "u": (5, 8)}
    tensors = [tensor(name, numbers(*shape)) for name, shape in shapes.items()]
    tensors.append(tensor("v", numbers(8) ** 2 + 1))
    path = save(tmp_path / "m.onnx", nodes, [value("x", ["n", 3, 6, 6])], [value("y", 2)], tensors)
    file, graph, found = open_layers(path)
    module = OnnxModule(file, graph, found.layers).eval()
    assert_as_in_runtime(path, {"x": numbers(2, 3, 6, 6)})
    assert rewrite(graph, found.layers, module, copy.deepcopy(module)) == file.proto
    other = copy.deepcopy(module)
    with torch.no_grad():
        other.get_submodule("head").weight += 1
        other.get_submodule("norm").running_mean += 1
    proto = rewrite(graph, found.layers, module, other)
    feed = {"x": numbers(2, 3, 6, 6)}
    with torch.no_grad():
        (wanted,) = other(**feed).values()
    np.testing.assert_allclose(outputs_of(proto, feed)[0], wanted.numpy(), rtol=1e-4, atol=1e-4)
    before, after = ({t.name: t.raw_data for t in p.graph.initializer} for p in (file.proto, proto))
    assert {n for n in before if before[n] != after.get(n)} == {
        "m",
        "u",
    }  # u is gone: its product is the weight
    assert "Transpose" not in {n.op_type for n in proto.graph.node}


def test_dense_layers_and_statistics_are_fitted_in_files_too(tmp_path):
    path = network(tmp_path / "m.onnx")
    result = compress_onnx(path, tmp_path / "s.onnx", tt.Ranks({"two": 6}), calibration=IMAGES)
    assert [layer.name for layer in result.plan.compressed] == ["two"]
    before, after = (Graph(onnx.load(p)).constants for p in (path, tmp_path / "s.onnx"))
    assert before["w1"].raw_data == after["w1"].raw_data
    assert "w3" not in after  # fitted to what it gets behind the chain
    kept = compress_onnx(
        path, tmp_path / "k.onnx", tt.Ranks({"two": 6}), calibration=IMAGES, exclude=["up", "head"]
    )
    constants = Graph(onnx.load(tmp_path / "k.onnx")).constants
    assert all(constants[n].raw_data == before[n].raw_data for n in ("w1", "w3", "w4", "b3"))
    assert result.output.error <= kept.output.error


def test_half_precision_is_computed_in_single(tmp_path):
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], name="conv", pads=[1] * 4),
        helper.make_node("Cast", ["c"], ["s"], to=TensorProto.FLOAT),
        helper.make_node("Cast", ["s"], ["y"], to=TensorProto.FLOAT16),
    ]
    half = [tensor("w", numbers(8, 3, 3, 3, dtype=np.float16))]
    inputs = [value("x", ["n", 3, 6, 6], TensorProto.FLOAT16)]
    path = save(tmp_path / "m.onnx", nodes, inputs, [value("y", 4, TensorProto.FLOAT16)], half)
    feed = {"x": numbers(2, 3, 6, 6, dtype=np.float16)}
    assert_as_in_runtime(path, feed, tolerance=1e-2)
    (y,) = module_of(path)(**feed).values()
    assert y.dtype == torch.float32
    assert y.requires_grad


def conditional(path, opset=17):
    """Relu or its negative by the sign of the mean: an If, whose branches use a value around them."""
    then = helper.make_graph([helper.make_node("Relu", ["c"], ["a"])], "then", [], [value("a", 4)])
    other = helper.make_graph([helper.make_node("Neg", ["c"], ["b"])], "else", [], [value("b", 4)])
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], name="first", pads=[1] * 4),
        helper.make_node("ReduceMean", ["c"], ["m"], keepdims=0),
        constant("zero", np.float32(0)),
        helper.make_node("Greater", ["m", "zero"], ["g"]),
        helper.make_node("If", ["g"], ["i"], then_branch=then, else_branch=other),
        helper.make_node("Conv", ["i", "v"], ["y"], name="second", pads=[1] * 4),
    ]
    tensors = [tensor("w", numbers(16, 3, 3, 3)), tensor("v", numbers(16, 16, 3, 3))]
    return save(path, nodes, [value("x", ["n", 3, 8, 8])], [value("y", 4)], tensors, opset=opset)


def test_what_torch_lacks_is_run_by_onnx_runtime(tmp_path):
    path = conditional(tmp_path / "m.onnx")
    for sign in (1, -1):
        assert_as_in_runtime(path, {"x": sign * np.abs(numbers(2, 3, 8, 8))})
    (y,) = module_of(path)(x=numbers(2, 3, 8, 8)).values()
    y.sum().backward()  # the layer behind it has a gradient


@pytest.mark.filterwarnings("ignore::tuckertree.calibration.CalibrationWarning")
def test_a_file_that_derivatives_do_not_go_through_is_compressed_by_moments(tmp_path):
    path = conditional(tmp_path / "m.onnx")
    images = numbers(64, 3, 8, 8).cumsum(2).cumsum(3)
    result = compress_onnx(path, tmp_path / "s.onnx", tt.Budget(macs=0.6), calibration=images)
    assert result.plan.rule["objective"] == "moments"


def test_a_node_that_torch_does_otherwise_is_named(tmp_path, monkeypatch):
    path = network(tmp_path / "m.onnx")
    real = steps.function_of
    monkeypatch.setattr(steps, "function_of", lambda o: torch.tanh if o.kind == "Sigmoid" else real(o))
    with pytest.raises(TuckertreeError, match=r"the node s \(Sigmoid\) gives other values in torch"):
        compress_onnx(path, tmp_path / "s.onnx", tt.Budget(macs=0.5), calibration=IMAGES)
    assert not (tmp_path / "s.onnx").exists()
    compress_onnx(path, tmp_path / "s.onnx", tt.Budget(macs=0.5))  # without images nothing is run in torch


def test_a_node_that_does_not_run_is_named(tmp_path, monkeypatch):
    def broken(x):
        raise RuntimeError("sizes do not match\nat all")

    path = network(tmp_path / "m.onnx")
    monkeypatch.setattr(
        steps, "function_of", lambda o: broken if o.kind == "Sigmoid" else operators.function_of(o)
    )
    with pytest.raises(TuckertreeError, match=r"the node s \(Sigmoid\) does not run: sizes do not match$"):
        module_of(path)(x=IMAGES[:1])


def test_values_are_freed_after_their_last_use(tmp_path, monkeypatch):
    nodes = [helper.make_node("Exp", [f"v{n}"], [f"v{n + 1}"]) for n in range(8)]
    path = save(tmp_path / "m.onnx", nodes, [value("v0", ["n", 4])], [value("v8", 2)])
    alive, most = [], []

    def exp(x):
        y = x.exp()
        alive.append(weakref.ref(y))
        gc.collect()
        most.append(sum(each() is not None for each in alive))
        return y

    monkeypatch.setattr(steps, "function_of", lambda _: exp)
    module_of(path)(v0=numbers(2, 4))
    assert max(most) <= 3


def test_copies_share_constants_and_have_layers_of_their_own(tmp_path):
    module = module_of(network(tmp_path / "m.onnx"))
    twin = copy.deepcopy(module)
    assert twin.get_submodule("one") is not module.get_submodule("one")
    with torch.no_grad():
        twin.get_submodule("one").weight.zero_()
    first, second = (net(x=IMAGES[:1])["y"] for net in (module, twin))
    assert not torch.equal(first, second)


def test_a_norm_may_be_named_as_a_layer_is(tmp_path):
    nodes = [
        helper.make_node("BatchNormalization", ["x", "s", "b", "m", "v"], ["n"], name="y"),
        helper.make_node("Conv", ["n", "w"], ["y"]),
    ]
    tensors = [tensor(name, numbers(3)) for name in "sbm"]
    tensors += [tensor("v", numbers(3) ** 2 + 1), tensor("w", numbers(8, 3, 3, 3))]
    path = save(tmp_path / "m.onnx", nodes, [value("x", ["n", 3, 6, 6])], [value("y", 4)], tensors)
    assert_as_in_runtime(path, {"x": numbers(2, 3, 6, 6)})
    module = module_of(path)
    (norm,) = module.norms
    assert module.get_submodule("y") is not module.get_submodule(norm)
