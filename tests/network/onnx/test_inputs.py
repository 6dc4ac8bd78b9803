"""Several inputs: open sizes, symbols, the batch wherever it stands, values."""

import json

import numpy as np
import pytest
import torch

import tuckertree as tt
from tests.network.onnx.cases import (
    TensorProto,
    helper,
    numbers,
    onnx,
    onnx_inventory,
    save,
    tensor,
    value,
)
from tests.tools.cli.test_cli import tuckertree
from tuckertree._base.errors import TuckertreeError, UsageError
from tuckertree.network.onnx.examples import example_feed
from tuckertree.network.onnx.graph import Graph
from tuckertree.network.onnx.inputs import batch_axes, repeated
from tuckertree.onnx_models import compress_onnx
from tuckertree.tools.bench import open_subject
from tuckertree.tools.bench.memory import peak_memory


def graph_of(*shapes, kinds=()):
    """A graph of inputs alone, named a, b, ..."""
    kinds = kinds or [TensorProto.FLOAT] * len(shapes)
    inputs = [value(n, shape, kind) for n, shape, kind in zip("abcd", shapes, kinds, strict=False)]
    graph = helper.make_graph([helper.make_node("Identity", ["a"], ["y"])], "g", inputs, [value("y", 1)])
    return Graph(helper.make_model(graph, ir_version=8))


def shapes(*inputs, size=None, values=None, kinds=()):
    return [x.shape for x in example_feed(graph_of(*inputs, kinds=kinds), size, input_values=values).values()]


IMAGE = ["N", 3, "H", "W"]


@pytest.mark.parametrize(
    ("inputs", "size", "found"),
    [
        ([IMAGE, IMAGE], {"a": (3, 4, 5), "b": (3, 4, 5)}, [(1, 3, 4, 5)] * 2),
        ([IMAGE, IMAGE], {"b": (3, 4, 5)}, [(1, 3, 4, 5)] * 2),
        ([IMAGE, IMAGE], (3, 4, 5), [(1, 3, 4, 5)] * 2),
        ([IMAGE, ["H", "W"]], (3, 4, 5), [(1, 3, 4, 5), (4, 5)]),
        ([IMAGE, [2, "N", 7]], (3, 4, 5), [(1, 3, 4, 5), (2, 1, 7)]),
        ([["N", 3], ["K", 4]], {"b": (9, 4)}, [(1, 3), (9, 4)]),
        ([["N", 3], [2, "N", "K"]], {"b": (2, 9)}, [(1, 3), (2, 1, 9)]),
        ([["N", 3], ["T", "N"]], {"b": (9,)}, [(1, 3), (9, 1)]),
        ([[None, None], [None, None]], {"a": (6,), "b": (7,)}, [(1, 6), (1, 7)]),
        ([["", ""], ["", 3]], {"a": (6,)}, [(1, 6), (1, 3)]),
        ([["N", "S"], ["N", "S"], ["N", "T"]], {"a": (6,), "c": (8,)}, [(1, 6), (1, 6), (1, 8)]),
        ([[5, "S"], [5, "T"], [5, "T"]], {"a": (6,), "b": (5, 8)}, [(5, 6), (5, 8), (5, 8)]),
        ([["a_dynamic_axes_1", 3], ["b_dynamic_axes_1", 4]], None, [(1, 3), (1, 4)]),
        ([["N", 3], []], None, [(1, 3), ()]),
    ],
)
def test_sizes_of_inputs(inputs, size, found):
    assert shapes(*inputs, size=size) == found


@pytest.mark.parametrize(
    ("inputs", "size", "message"),
    [
        (
            [IMAGE, IMAGE],
            None,
            r"give --input-size NAME:SIZE: .* a \[\?, 3, \?, \?\]; b \[\?, 3, \?, \?\] open",
        ),
        ([IMAGE, ["N", "T"]], (3, 4, 5), r"give --input-size NAME:SIZE.*input b \[\?, \?\] open"),
        ([["N", "S", "S"]], (4, 5), "'S' is one size wherever it stands.* 4 in a and 5 in a"),
        ([IMAGE, IMAGE], {"a": (3, 4, 5), "b": (3, 4, 6)}, "'W' is one size.* 5 in a and 6 in b"),
        ([IMAGE, ["N", 4]], {"b": (5,)}, r"does not fit the input b \[\?, 4\], without the batch"),
        ([IMAGE], {"a": (1, 3, 4, 5)}, "does not fit the input a .*first of which is the batch"),
        ([IMAGE], {"z": (3, 4, 5)}, "no input 'z'; its inputs are a"),
        ([["N", 3], ["K", 4]], None, r"input b \[\?, 4\] open"),
    ],
)
def test_sizes_that_do_not_fit(inputs, size, message):
    with pytest.raises(UsageError, match=message):
        shapes(*inputs, size=size)


@pytest.mark.parametrize(
    ("inputs", "axes"),
    [
        ([["N", 3], ["N", 4]], {"a": (0,), "b": (0,)}),
        ([["N", 3], [2, "N", 4], ["K", 4], [7, 4]], {"a": (0,), "b": (1,), "c": (), "d": ()}),
        ([["N", "N"], [3]], {"a": (0, 1), "b": ()}),
        ([[None, 3], [None, 4], ["K", 4]], {"a": (0,), "b": (0,), "c": ()}),
        ([[None, 3], [2, None, 4]], {"a": (0,), "b": ()}),
        ([[4, 3], [4, 4], [5, 4], []], {"a": (0,), "b": (0,), "c": (), "d": ()}),
    ],
)
def test_the_batch_is_the_symbol_of_the_first_axis(inputs, axes):
    assert batch_axes(graph_of(*inputs)) == axes


def test_samples_are_repeated_along_the_batch_alone():
    graph = graph_of(["N", 3], [2, "N", 4], ["K", 4])
    feed = example_feed(graph, {"c": (9, 4)})
    many = repeated(feed, graph, 5)
    assert [x.shape for x in many.values()] == [(5, 3), (2, 5, 4), (9, 4)]
    np.testing.assert_array_equal(many["b"][:, 3], feed["b"][:, 0])


IDS, FLOAT, FLAG = TensorProto.INT64, TensorProto.FLOAT, TensorProto.BOOL


def test_values_are_random_in_a_range_or_given():
    graph = graph_of(["N", 5], ["N", 4], ["N", 3], kinds=(IDS, FLOAT, FLAG))
    array = np.arange(8.0).reshape(2, 4)
    feed = example_feed(graph, input_values={"a": (1, 3), "b": array, "c": (0, 1)})
    assert {*feed["a"].ravel()} <= {1, 2, 3}
    assert feed["a"].dtype == np.int64
    np.testing.assert_array_equal(feed["b"], array.astype(np.float32))
    assert [x.shape for x in feed.values()] == [(2, 5), (2, 4), (2, 3)]
    assert not example_feed(graph)["a"].any()
    assert 2 <= example_feed(graph, input_values={"b": (2, 3)})["b"].min() <= 3


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"a": (0.5, 3)}, "0.5..3 is no range of int64"),
        ({"a": (3, 1)}, "3..1 is no range"),
        ({"": (0, 1)}, "needs the name of an input: a, b"),
        ({"z": (0, 1)}, "no input 'z'"),
        ({"a": np.ones((1, 5))}, "takes int64, not float64"),
        ({"a": np.array([["x"] * 5])}, "takes int64, not"),
        ({"b": np.ones((1, 5))}, r"\[1, 5\] does not fit the input b \[\?, 4\]"),
        ({"a": np.ones((2, 5), int), "b": np.ones((3, 4))}, "'N' is one size.*2 in a and 3 in b"),
    ],
)
def test_values_that_do_not_fit(values, message):
    with pytest.raises(UsageError, match=message):
        example_feed(graph_of(["N", 5], ["N", 4], kinds=(IDS, FLOAT)), input_values=values)


def stereo(path, *shapes):
    """Two inputs, one behind the other, through a convolution."""
    nodes = [
        helper.make_node("Concat", ["left", "right"], ["c"], axis=1),
        helper.make_node("Conv", ["c", "w"], ["y"], name="conv", pads=[1] * 4),
    ]
    inputs = [value(n, shape) for n, shape in zip(("left", "right"), shapes, strict=True)]
    return save(path, nodes, inputs, [value("y", 4)], [tensor("w", numbers(32, 6, 3, 3))])


def test_sizes_by_name_on_the_command_line(tmp_path):
    path, small = stereo(tmp_path / "m.onnx", IMAGE, IMAGE), tmp_path / "small.onnx"
    named = ("--input-size", "left:3,32,32", "--input-size", "right:3x32x32")
    for options in (named, named[:2], ("--input-size", "3,32,32")):
        code, out, _ = tuckertree("inspect", path, *options, "--json")
        assert (code, json.loads(out)["macs"]) == (0, 32 * 32 * 32 * 54)
    assert tuckertree("compress", path, "-o", small, "--macs", 0.6, *named)[0] == 0
    assert onnx.load(small).graph.input == onnx.load(path).graph.input
    timed = ("--rounds", 5, "--batch", 3, "--json", "--threads", 1, "--no-memory")
    code, out, _ = tuckertree("bench", path, small, *named, *timed)
    assert code == 0
    dense, less = json.loads(out)["rows"]
    assert dense["macs"] == 32 * 32 * 32 * 54 > less["macs"]
    assert dense["batch"] == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "give --input-size NAME:SIZE"),
        (("--input-size", "left:3,9,9", "--input-size", "left:3,9,9"), "is given twice for left"),
        (("--input-size", "left:3,9,9", "--input-size", "3,9,9"), "give the name of the input with each"),
        (("--input-size", "left:3,nine,9"), "must be positive integers"),
        (("--input-size", "left:"), "must be positive integers"),
        (("--input-size", "up:3,9,9"), "no input 'up'; its inputs are left, right"),
        (("--input-size", "3,9,9", "--input-values", "left:a..b"), "NAME:0..999"),
        (("--input-size", "3,9,9", "--input-values", "0..1"), "needs the name of an input"),
    ],
)
def test_options_for_inputs_that_do_not_fit(options, message, tmp_path):
    path = stereo(tmp_path / "m.onnx", IMAGE, IMAGE)
    code, _, err = tuckertree("inspect", path, *options)
    assert (code, err.count("\n")) == (2, 1), err
    assert message in err


def test_what_an_onnx_model_alone_has_is_refused_for_others():
    code, _, err = tuckertree("bench", "demo", "--input-size", "x:3,32,32")
    assert (code, "ONNX" in err) == (2, True)
    for command in ("inspect", "bench"):
        code, _, err = tuckertree(command, "demo", "--input-values", "x:0..1")
        assert (code, "ONNX" in err) == (2, True)


def embedding(path):
    """Ids of 100 things, and how many of them count, looked up and multiplied."""
    nodes = [
        helper.make_node("Sub", ["ids", "one"], ["index"]),
        helper.make_node("Gather", ["table", "index"], ["e"]),
        helper.make_node("MatMul", ["e", "w"], ["y"], name="head"),
    ]
    tensors = [
        tensor("one", np.array(1)),
        tensor("table", numbers(100, 32)),
        tensor("w", numbers(32, 48)),
    ]
    return save(path, nodes, [value("ids", ["N", "S"], IDS)], [value("y", 3)], tensors)


def test_values_on_the_command_line(tmp_path):
    path, size = embedding(tmp_path / "m.onnx"), ("--input-size", "7")
    np.save(tmp_path / "ids.npy", np.arange(1, 13).reshape(2, 6))
    np.savez(tmp_path / "ids.npz", ids=np.arange(1, 13).reshape(2, 6))
    for options in (
        (*size, "--input-values", "ids:1..100"),
        (*size, "--input-values", "1..100"),
        ("--input-values", f"ids:{tmp_path}/ids.npy"),
        ("--input-values", f"{tmp_path}/ids.npz"),
    ):
        code, out, err = tuckertree(
            "compress", path, "-o", tmp_path / "s.onnx", "--params", 0.9, *options, "--json", "--overwrite"
        )
        assert code == 0, err
        assert (
            json.loads(out)["compared_on"] == "one random input"
            if ".." in options[-1]
            else "the values given"
        )
    assert onnx_inventory(path, input_values={"ids": np.ones((2, 6), int)}).macs == 6 * 32 * 48
    code, _, err = tuckertree("inspect", path, *size, "--input-values", "ids:-500..-400")
    assert (code, "out of data bounds" in err, err.count("\n")) == (1, True, 1), err


def test_files_of_values_that_cannot_be_used(tmp_path):
    path = embedding(tmp_path / "m.onnx")
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    (tmp_path / "text.npy").write_text("no numbers")
    for name, message in (
        ("nosuch.npy", "cannot be read: No such file"),
        ("objects.npy", "holds no arrays of numbers"),
        ("text.npy", "holds no arrays of numbers"),
    ):
        code, _, err = tuckertree("inspect", path, "--input-values", f"ids:{tmp_path}/{name}")
        assert (code, message in err, err.count("\n")) == (1, True, 1), err


def with_state(path, *, state, anchors=None):
    """A convolution beside a recurrent state and anchors that go their own ways."""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["y"], name="conv"),
        helper.make_node("Gather", ["state", "i"], ["last"]),
    ]
    inputs = [value("x", ["N", 8, 9, 9]), value("state", state)]
    outputs = [value("y", 4), value("last", 3)]
    if anchors:
        nodes.append(helper.make_node("Neg", ["anchors"], ["z"]))
        inputs.append(value("anchors", anchors))
        outputs.append(value("z", 2))
    tensors = [tensor("w", numbers(32, 8, 3, 3)), tensor("i", np.array([1]))]
    return save(path, nodes, inputs, outputs, tensors)


@pytest.mark.filterwarnings("ignore:fitting does not bring")  # of noise there is nothing to learn
@pytest.mark.parametrize("batch", [1, 2, 4, 20])
@pytest.mark.parametrize("order", [1, -1])
def test_only_the_batch_is_cut_in_calibration(batch, order, tmp_path):
    path = with_state(tmp_path / "m.onnx", state=[2, "N", 4], anchors=["K", 4])
    given = [
        {
            "x": torch.from_numpy(numbers(batch, 8, 9, 9, seed=k)),
            "state": numbers(2, batch, 4, seed=k),
            "anchors": numbers(batch, 4, seed=k),
        }
        for k in range(40 // batch)
    ]
    given = [dict([*feed.items()][::order]) for feed in given]
    result = compress_onnx(path, tmp_path / "small.onnx", tt.Budget(macs=0.6), calibration=given)
    assert result.plan.macs[0] == 32 * 72 * 49
    assert result.output.compared_on == "32 calibration images"


def test_inputs_that_differ_in_the_batch_are_refused(tmp_path):
    path = with_state(tmp_path / "m.onnx", state=[2, "N", 4])
    feed = {"x": numbers(4, 8, 9, 9), "state": numbers(2, 3, 4)}
    with pytest.raises(
        TuckertreeError, match=r"differ in the batch, 'N': x has 4 samples, state \[2, 3, 4\]"
    ):
        compress_onnx(path, tmp_path / "s.onnx", tt.Budget(macs=0.6), calibration=[feed])


def test_where_the_batch_is_not_known_batches_are_taken_whole(tmp_path):
    path = with_state(tmp_path / "m.onnx", state=[2, None, 4])
    feeds = [{"x": numbers(8, 8, 9, 9, seed=k), "state": numbers(2, 8, 4)} for k in range(5)]
    result = compress_onnx(path, tmp_path / "s.onnx", tt.Budget(macs=0.6), calibration=feeds)
    assert result.plan.macs[0] == 8 * 32 * 72 * 49
    large = [{"x": numbers(9, 8, 9, 9), "state": numbers(2, 9, 4)}]
    with pytest.raises(TuckertreeError, match=r"cannot be divided.*give batches of at most 8"):
        compress_onnx(path, tmp_path / "t.onnx", tt.Budget(macs=0.6), calibration=large)


def test_values_beside_calibration_are_refused(tmp_path):
    path = with_state(tmp_path / "m.onnx", state=[2, "N", 4])
    feed = {"x": numbers(4, 8, 9, 9), "state": numbers(2, 4, 4)}
    with pytest.raises(UsageError, match="cannot be combined with --calibration"):
        compress_onnx(
            path, tmp_path / "s.onnx", tt.Energy(0.5), calibration=[feed], input_values={"state": (0, 1)}
        )


def test_a_file_of_several_inputs_is_timed_on_all_of_them(tmp_path):
    subject = open_subject(str(with_state(tmp_path / "m.onnx", state=[2, "N", 4])), batch=3)
    assert [tuple(x.shape) for x in subject.all_inputs] == [(3, 8, 9, 9), (2, 3, 4)]
    assert subject.macs == 32 * 72 * 49


def test_memory_is_measured_with_several_inputs(tmp_path):
    subject = open_subject(str(stereo(tmp_path / "m.onnx", ["N", 3, 9, 9], ["N", 3, 9, 9])))
    found = peak_memory("onnxruntime", 1, subject.file, subject.all_inputs)
    assert found is None or found > 0
