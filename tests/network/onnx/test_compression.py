"""compress_onnx() on whole graphs."""

import copy

import numpy as np
import pytest
import torch

import tuckertree as tt
from tests.network.onnx.cases import (
    IMAGES,
    constant,
    helper,
    numbers,
    onnx,
    onnx_inventory,
    onnx_trade_off_curve,
    open_layers,
    outputs_of,
    save,
    tensor,
    value,
)
from tuckertree.io.onnx_record import drop_record
from tuckertree.network.onnx.agreement import compare_sessions
from tuckertree.network.onnx.graph import Graph
from tuckertree.network.onnx.runtime import Session
from tuckertree.network.onnx.writing import data_file
from tuckertree.onnx_models import compress_onnx


def test_the_file_is_what_the_plan_says(model, tmp_path):
    result = compress_onnx(model, tmp_path / "small.onnx", tt.Budget(macs=0.5))
    smaller = onnx_inventory(tmp_path / "small.onnx")
    assert smaller.macs == result.plan.macs[1] <= 0.5 * result.plan.macs[0]
    assert smaller.parameters == result.plan.parameters[1] < result.plan.parameters[0]
    assert "two" in {layer.name for layer in result.plan.compressed}
    assert result.output.bytes == (model.stat().st_size, (tmp_path / "small.onnx").stat().st_size)
    assert 0 < result.output.error < 0.2
    assert "relative error (ONNX Runtime, one random input)" in str(result)
    onnx.checker.check_model(str(tmp_path / "small.onnx"), full_check=True)
    feed = {"x": numbers(3, 3, 16, 16)}
    assert compare_sessions(Session(model), Session(tmp_path / "small.onnx"), [feed]).error < 0.2


def test_everything_else_is_byte_for_byte_as_it_was(model, tmp_path):
    before = onnx.load(model)
    before.producer_name, before.doc_string, before.domain, before.model_version = "maker", "doc", "org", 3
    before.metadata_props.add(key="k", value="v")
    before.opset_import.add(domain="com.example", version=2)
    before.graph.value_info.append(value("r1", 4))
    onnx.save(before, str(model))
    result = compress_onnx(model, tmp_path / "small.onnx", tt.Energy(0.8))
    after = onnx.load(tmp_path / "small.onnx")
    replaced = {layer.name for layer in result.plan.compressed}
    kept = [node.SerializeToString() for node in before.graph.node if node.name not in replaced]
    assert [
        n.SerializeToString() for n in after.graph.node if n.name.partition("/")[0] not in replaced
    ] == kept
    assert 0 < len(kept) < len(before.graph.node)
    old = {t.name: t.SerializeToString() for t in before.graph.initializer}
    new = {t.name: t.SerializeToString() for t in after.graph.initializer}
    assert {name for name in old if name not in new} == {
        node.input[1] for node in before.graph.node if node.name in replaced
    }
    assert all(new[name] == old[name] for name in old if name in new)
    for each in (before, after):
        del each.graph.node[:], each.graph.initializer[:]
    assert [entry.key for entry in after.metadata_props] == ["k", "tuckertree"]
    drop_record(after)
    assert after.SerializeToString() == before.SerializeToString()


def test_images_bring_the_outputs_nearer_to_the_original(model, tmp_path):
    seen, unseen = IMAGES[:48], {"x": IMAGES[48:].numpy()}
    distances = []
    for number, images in enumerate((None, seen)):
        small = tmp_path / f"{number}.onnx"
        result = compress_onnx(model, small, tt.Budget(params=0.3), calibration=images)
        distances.append(compare_sessions(Session(model), Session(small), [unseen]).error)
    assert distances[1] < 0.7 * distances[0]
    assert result.plan.rule["objective"] == "outputs"
    assert result.plan.macs[0] == onnx_inventory(model).macs
    assert result.output.compared_on == "32 calibration images"
    again = compress_onnx(model, tmp_path / "again.onnx", tt.Budget(params=0.3), calibration=seen)
    assert again.output.error == pytest.approx(result.output.error, rel=1e-3)


def test_measured_sensitivity_spares_the_layer_that_the_output_hangs_on(tmp_path):
    """Two branches of the same weights, of which one counts a hundred times as much."""
    weight = [tensor(name, numbers(16, 16, 3, 3, seed=7)) for name in ("w", "v")]
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], name="loud"),
        helper.make_node("Conv", ["x", "v"], ["b"], name="quiet"),
        constant("share", np.float32(0.01)),
        helper.make_node("Mul", ["b", "share"], ["c"]),
        helper.make_node("Add", ["a", "c"], ["y"]),
    ]
    path = save(tmp_path / "m.onnx", nodes, [value("x", ["n", 16, 8, 8])], [value("y", 4)], weight)
    images = torch.from_numpy(numbers(16, 16, 8, 8))
    errors = {}
    for objective in ("moments", "sensitivity"):
        small = tmp_path / f"{objective}.onnx"
        result = compress_onnx(
            path, small, tt.Budget(macs=0.6), calibration=images, objective=objective, first="svd"
        )
        errors[objective] = result.output.error
    parameters = {layer.name: layer.parameters[1] for layer in result.plan.layers}
    assert parameters["quiet"] < 0.5 * parameters["loud"]
    assert errors["sensitivity"] < 0.5 * errors["moments"]


def test_biases_are_fitted_in_their_places(model, tmp_path):
    result = compress_onnx(model, tmp_path / "small.onnx", tt.Budget(params=0.3), calibration=IMAGES)
    before, after = (
        {t.name: onnx.numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer}
        for path in (model, tmp_path / "small.onnx")
    )
    assert "two" in {layer.name for layer in result.plan.compressed}
    assert before["b2"].shape == after["b2"].shape
    assert not np.allclose(before["b2"], after["b2"])
    assert onnx_inventory(tmp_path / "small.onnx").parameters == result.plan.parameters[1]


def batch_norm(length):
    names = ["scale", "shift", "mean", "variance"]
    values = [1 + 0.1 * numbers(length, seed=k) for k in range(3)] + [np.abs(numbers(length)) + 1]
    return names, [tensor(n, v.astype(np.float32)) for n, v in zip(names, values, strict=True)]


def followed(kind):
    """A convolution or a product without a bias, and a node behind it that has a constant in its place."""
    weight = tensor("w", numbers(24, 16, 3, 3))
    conv = helper.make_node("Conv", ["x", "w"], ["c"], name="layer")
    if kind == "BatchNormalization":
        names, tensors = batch_norm(24)
        node = helper.make_node(kind, ["c", *names], ["y"], epsilon=1e-3, training_mode=0)
        return [conv, node], [weight, *tensors], "mean"
    if kind == "MatMul":
        nodes = [
            helper.make_node("ReduceMean", ["x"], ["p"], axes=[2, 3], keepdims=0),
            helper.make_node(kind, ["p", "w"], ["c"], name="layer"),
            helper.make_node("Add", ["b", "c"], ["a"]),
            helper.make_node("Unsqueeze", ["a", "axes"], ["y"]),
        ]
        axes = tensor("axes", np.array([2, 3]))
        return nodes, [tensor("w", numbers(16, 24)), tensor("b", numbers(24)), axes], "b"
    nodes = [conv, constant("b", numbers(24, 1, 1)), helper.make_node(kind, ["c", "b"], ["y"])]
    return nodes, [weight], "b"


@pytest.mark.filterwarnings("ignore:the calibration images do not look like")
@pytest.mark.parametrize("kind", ["BatchNormalization", "Add", "Sub", "MatMul"])
def test_means_are_kept_in_what_follows_a_node_without_a_bias(kind, tmp_path):
    nodes, tensors, name = followed(kind)
    path = save(tmp_path / "m.onnx", nodes, [value("x", ["n", 16, 8, 8])], [value("y", 4)], tensors)
    images = torch.from_numpy(numbers(160, 16, 8, 8) + numbers(16, 1, 1) + 1)
    small = tmp_path / "small.onnx"
    compress_onnx(path, small, tt.Ranks({"layer": 4}), calibration=images)
    feed = {"x": images.numpy()}
    before, after = (outputs_of(p, feed)[0].mean((0, 2, 3)) for p in (path, small))
    np.testing.assert_allclose(after, before, atol=0.03 * np.abs(before).max())
    old, new = (Graph(onnx.load(p)).constants[name] for p in (path, small))
    assert old.dims == new.dims
    assert old.raw_data != new.raw_data


def test_half_precision(model, tmp_path):
    half = onnx.load(model)
    for t in half.graph.initializer:
        t.CopyFrom(tensor(t.name, onnx.numpy_helper.to_array(t).astype(np.float16)))
    for v in (*half.graph.input, *half.graph.output):
        v.type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
    onnx.save(half, str(model))
    result = compress_onnx(model, tmp_path / "small.onnx", tt.Budget(params=0.3), calibration=IMAGES)
    assert result.output.error < 0.3
    types = {t.data_type for t in onnx.load(tmp_path / "small.onnx").graph.initializer}
    assert types == {onnx.TensorProto.FLOAT16}


def test_external_data_stay_external(model, tmp_path):
    (tmp_path / "in").mkdir()
    large = tmp_path / "in/model.onnx"
    onnx.save(
        onnx.load(model), str(large), save_as_external_data=True, location="weights.bin", size_threshold=0
    )
    result = compress_onnx(large, tmp_path / "out/small.onnx", tt.Budget(macs=0.5))
    small = tmp_path / "out/small.onnx"
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["small.onnx", "small.onnx.data"]
    proto = onnx.load(small, load_external_data=False)
    assert {t.name for t in proto.graph.initializer if t.data_location} >= {"b1", "b2", "w4"}
    compress_onnx(model, tmp_path / "inline.onnx", tt.Budget(macs=0.5))
    feed = {"x": numbers(2, 3, 16, 16)}
    np.testing.assert_array_equal(outputs_of(small, feed)[0], outputs_of(tmp_path / "inline.onnx", feed)[0])
    assert result.output.bytes[1] == sum(p.stat().st_size for p in (tmp_path / "out").iterdir())
    compress_onnx(large, small, tt.Budget(macs=0.4), calibration=IMAGES, overwrite=True)
    compress_onnx(model, small, tt.Budget(macs=0.4), overwrite=True)
    assert not data_file(small).exists()


def test_data_too_large_for_one_message_move_out(model, tmp_path, monkeypatch):
    monkeypatch.setattr("tuckertree.network.onnx.writing.LARGEST", 10_000)
    compress_onnx(model, tmp_path / "small.onnx", tt.Budget(macs=0.5))
    assert data_file(tmp_path / "small.onnx").exists()
    assert (tmp_path / "small.onnx").stat().st_size < 10_000


def test_subgraphs_stay_as_they_are(tmp_path):
    inner = [helper.make_node("Conv", ["x", "w"], ["t"], name="inside", pads=[1] * 4)]
    other = [helper.make_node("Identity", ["x"], ["e"])]
    nodes = [
        constant("yes", np.array(True)),
        helper.make_node(
            "If",
            ["yes"],
            ["i"],
            name="branch",
            then_branch=helper.make_graph(inner, "then", [], [value("t", 4)]),
            else_branch=helper.make_graph(other, "else", [], [value("e", 4)]),
        ),
        helper.make_node("Conv", ["i", "v"], ["y"], name="outside", pads=[1] * 4),
    ]
    weights = [tensor(name, numbers(16, 16, 3, 3, seed=k)) for k, name in enumerate("wv")]
    path = save(tmp_path / "m.onnx", nodes, [value("x", [1, 16, 8, 8])], [value("y", 4)], weights)
    result = compress_onnx(path, tmp_path / "small.onnx", tt.Energy(0.5))
    reasons = {layer.name: layer.reason for layer in result.plan.layers}
    assert reasons["inside"] == "inside the If branch"
    assert [layer.name for layer in result.plan.compressed] == ["outside"]
    before, after = onnx.load(path), onnx.load(tmp_path / "small.onnx")
    assert after.graph.node[1] == before.graph.node[1]


def test_a_weight_that_a_subgraph_uses_too_is_shared(tmp_path):
    branch = helper.make_graph([helper.make_node("Conv", ["x", "w"], ["t"])], "b", [], [value("t", 4)])
    nodes = [
        constant("yes", np.array(True)),
        helper.make_node("If", ["yes"], ["i"], then_branch=branch, else_branch=copy.deepcopy(branch)),
        helper.make_node("Conv", ["i", "w"], ["y"], name="outside"),
    ]
    path = save(
        tmp_path / "m.onnx",
        nodes,
        [value("x", [1, 8, 8, 8])],
        [value("y", 4)],
        [tensor("w", numbers(8, 8, 3, 3))],
    )
    skip_reasons = {layer.name: layer.skip_reason for layer in open_layers(path)[2].inventory.layers}
    assert skip_reasons["outside"] == "shares its weight with another node"


QUANTIZED = {
    "ConvInteger": [helper.make_node("ConvInteger", ["x", "w"], ["y"], name="layer")],
    "DequantizeLinear": [
        helper.make_node("Cast", ["x"], ["f"], to=onnx.TensorProto.FLOAT),
        helper.make_node("DequantizeLinear", ["w", "s"], ["v"]),
        helper.make_node("Conv", ["f", "v"], ["z"], name="layer"),
        helper.make_node("Cast", ["z"], ["y"], to=onnx.TensorProto.INT32),
    ],
}


@pytest.mark.parametrize("kind", QUANTIZED)
def test_a_quantized_model_is_left_alone(kind, tmp_path):
    weights = [tensor("w", numbers(16, 8, 3, 3).astype(np.int8)), tensor("s", np.float32(0.1))]
    x, y = (value(n, [1, k, s, s], e) for n, k, s, e in (("x", 8, 9, 2), ("y", 16, 7, 6)))
    path = save(tmp_path / "m.onnx", QUANTIZED[kind], [x], [y], weights)
    with pytest.raises(tt.UnreachableTargetError, match=rf"nothing to compress.*quantized \({kind}\)"):
        compress_onnx(path, tmp_path / "small.onnx", tt.Budget(macs=0.5))
    assert [p.name for p in tmp_path.iterdir()] == ["m.onnx"]


def test_a_model_without_weights(tmp_path):
    path = save(
        tmp_path / "m.onnx", [helper.make_node("Relu", ["x"], ["y"])], [value("x", [1, 2])], [value("y", 2)]
    )
    with pytest.raises(tt.UnreachableTargetError, match="no convolution or matrix product"):
        compress_onnx(path, tmp_path / "small.onnx", tt.Energy(0.5))


def test_open_sizes_stay_open_and_need_a_size_to_count_at(tmp_path):
    nodes = [helper.make_node("Conv", ["x", "w"], ["y"], name="a")]
    x = value("x", ["n", 3, "height", "width"])
    path = save(tmp_path / "m.onnx", nodes, [x], [value("y", 4)], [tensor("w", numbers(32, 3, 3, 3))])
    small = tmp_path / "small.onnx"
    with pytest.raises(tt.UsageError, match=r"give --input-size.*x \[\?, 3, \?, \?\]"):
        compress_onnx(path, small, tt.Energy(0.5))
    for wrong in ((4, 9, 9), (9, 9)):
        with pytest.raises(tt.UsageError, match="--input-size does not fit"):
            compress_onnx(path, small, tt.Energy(0.5), input_size=wrong)
    result = compress_onnx(path, small, tt.Energy(0.5), input_size=(3, 9, 12))
    assert result.plan.macs[0] == 32 * 27 * 7 * 10
    assert onnx.load(small).graph.input[0] == x
    assert outputs_of(small, {"x": numbers(2, 3, 20, 5)})[0].shape == (2, 32, 18, 3)
    with pytest.raises(tt.UsageError, match="the calibration images are"):
        compress_onnx(path, small, tt.Energy(0.5), input_size=(3, 9, 12), calibration=IMAGES, overwrite=True)


@pytest.mark.filterwarnings("ignore:fewer calibration patches")
def test_a_prescribed_batch_is_kept_to(model, tmp_path):
    proto = onnx.load(model)
    for v in (*proto.graph.input, *proto.graph.output):
        v.type.tensor_type.shape.dim[0].dim_value = 5
    onnx.save(proto, str(model))
    result = compress_onnx(model, tmp_path / "small.onnx", tt.Budget(params=0.3), calibration=IMAGES[:23])
    assert result.output.compared_on == "20 calibration images"
    with pytest.raises(tt.TuckertreeError, match="takes 5 samples at a time"):
        compress_onnx(model, tmp_path / "b.onnx", tt.Budget(params=0.3), calibration=IMAGES[:4])


def test_several_inputs_are_calibrated_by_name(tmp_path):
    nodes = [
        helper.make_node("Conv", ["a", "w"], ["c"], name="layer"),
        helper.make_node("Mul", ["c", "b"], ["y"]),
    ]
    inputs = [value("a", ["n", 8, 9, 9]), value("b", ["n", 1, 1, 1])]
    path = save(tmp_path / "m.onnx", nodes, inputs, [value("y", 4)], [tensor("w", numbers(16, 8, 3, 3))])
    batch = {"a": torch.from_numpy(numbers(6, 8, 9, 9)), "b": torch.ones(6, 1, 1, 1)}
    result = compress_onnx(path, tmp_path / "small.onnx", tt.Energy(0.8), calibration=[batch] * 3)
    assert result.output.error < 0.6
    with pytest.raises(tt.TuckertreeError, match="the model takes a, b; the calibration gives a"):
        compress_onnx(path, tmp_path / "b.onnx", tt.Energy(0.8), calibration=[{"a": batch["a"]}])


def test_objectives_that_do_not_fit_are_refused(model, tmp_path):
    def run(rule, **options):
        compress_onnx(model, tmp_path / "small.onnx", rule, **options)

    with pytest.raises(tt.UsageError, match="needs calibration images"):
        run(tt.Budget(macs=0.5), objective="moments")
    with pytest.raises(tt.UsageError, match="belongs to a budget"):
        run(tt.Energy(0.5), objective="weight")
    with pytest.raises(tt.UsageError, match="unknown objective"):
        run(tt.Energy(0.5), objective="guess")
    with pytest.raises(tt.UsageError, match="no layer is named"):
        run(tt.Energy(0.5), include="nosuch")


def test_the_curve_rises_as_the_budget_falls(model):
    for images in (None, IMAGES):
        points = onnx_trade_off_curve(model, by="macs", points=6, calibration=images)
        losses = [point.loss for point in points]
        assert losses == sorted(losses, reverse=True)
        assert losses[-1] == 0


@pytest.mark.parametrize("calibration", [None, IMAGES])
def test_cp_chains_are_written_as_nodes(model, tmp_path, calibration):
    path = tmp_path / "small.onnx"
    result = compress_onnx(model, path, tt.Budget(macs=0.7), methods=("cp",), calibration=calibration)
    found = {layer.name: layer for layer in result.plan.compressed if layer.method == "cp"}
    assert found
    for name, layer in found.items():
        nodes = [node for node in onnx.load(path).graph.node if node.name.startswith(f"{name}/")]
        groups = [{a.name: a.i for a in node.attribute}["group"] for node in nodes]
        assert groups == [layer.groups, *[layer.groups * layer.ranks[0]] * (len(nodes) - 2), layer.groups]
    onnx.checker.check_model(str(path), full_check=True)
    assert result.output.error is not None
    assert 0 < result.output.error < 0.7
    assert onnx_inventory(path).macs == result.plan.macs[1] <= 0.7 * result.plan.macs[0]
    again = compress_onnx(path, tmp_path / "again.onnx", tt.Budget(macs=0.9))
    assert again.plan.macs[1] < result.plan.macs[1]
