"""A target of latency for ONNX files: what is measured is what is written."""

import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch

import tuckertree as tt
from tests.latency.cases import machine
from tests.network.onnx.cases import (
    IMAGES,
    helper,
    numbers,
    onnx,
    onnx_inventory,
    open_layers,
    outputs_of,
    save,
    tensor,
    value,
)
from tests.tools.cli.test_cli import tuckertree
from tuckertree._base.errors import UsageError
from tuckertree.core.layers import chain_stages, fusion_variants
from tuckertree.io.onnx_record import read_record
from tuckertree.latency import TimeModel, fuse_as_planned
from tuckertree.latency import files as files_module
from tuckertree.latency import network as network_module
from tuckertree.latency import target as target_module
from tuckertree.latency.files import FileBenchmark, count_as_run
from tuckertree.measure import Timing
from tuckertree.network.onnx import OnnxModule
from tuckertree.network.onnx.examples import example_feed
from tuckertree.network.onnx.rewriting import rewrite
from tuckertree.onnx_models import compress_onnx
from tuckertree.planning import Options, Ranks, make_plan, survey
from tuckertree.runtimes import get_runtime


def structure(path):
    """Nodes of a file with the shapes of their constants: all that its time depends on."""
    proto = onnx.load(path)
    shapes = {t.name: tuple(t.dims) for t in proto.graph.initializer}
    return [
        (
            node.op_type,
            [shapes.get(name) for name in node.input],
            [a.SerializeToString() for a in node.attribute],
        )
        for node in proto.graph.node
    ]


@pytest.fixture
def machine_of(monkeypatch):
    """Layers of known speed; gives a function that sets what networks are measured to take, plan after plan."""
    opened = []

    def measuring(path, *shares, dense=None):
        if dense is None:
            timer, layers = TimeModel(machine()), onnx_inventory(path).layers
            dense = sum(float(timer.seconds(layer, None, torch.zeros(1, 0))) for layer in layers)
        measured = iter(shares)

        def ratio(clock, plan):
            clock.planned(plan)
            return Timing(*[next(measured)] * 3)

        monkeypatch.setattr(FileBenchmark, "seconds", lambda _: dense)
        monkeypatch.setattr(FileBenchmark, "__call__", ratio)
        return opened

    ready = files_module._ready

    def recorded(runtime, path, inputs):
        opened.append(structure(path))
        return ready(runtime, path, inputs)

    monkeypatch.setattr(files_module, "_ready", recorded)
    monkeypatch.setattr(files_module, "RuntimeBenchmark", lambda *_: machine())
    return measuring


def test_the_file_has_the_structure_that_was_measured_last_to_keep_the_target(model, tmp_path, machine_of):
    opened = machine_of(model, 0.9, 0.79)
    small = tmp_path / "small.onnx"
    result = compress_onnx(model, small, tt.Budget(latency=0.8), calibration=IMAGES)
    dense, slow, kept = opened
    assert dense == structure(model)
    assert structure(small) == kept != slow
    found = result.plan.latency
    assert (found.target, found.measured, found.rounds, found.batch) == (0.8, pytest.approx(0.79), 2, 1)
    assert found.runtime.startswith("onnxruntime ")
    assert result.plan.rule["objective"] == "outputs"
    assert result.output.error < 0.5
    written = onnx_inventory(small)
    assert (written.parameters, written.macs) == (result.plan.parameters[1], result.plan.macs[1])
    assert result.summary()["latency"]["predicted"] == found.predicted
    assert "1.27x faster measured" in str(result)
    assert all(layer.form and layer.seconds for layer in result.plan.compressed)


def test_in_8_bits_the_structure_that_was_measured_is_written_quantized(model, tmp_path, machine_of):
    opened = machine_of(model, 0.7, 0.49)
    small = tmp_path / "small.onnx"
    result = compress_onnx(model, small, tt.Budget(latency=0.5, precision="int8"), calibration=IMAGES)
    dense, alone, kept = opened
    assert dense == structure(model)
    # The library puts the constants in an order of its own.
    assert sorted(map(str, structure(small))) == sorted(map(str, kept)) != sorted(map(str, alone))
    assert all("QuantizeLinear" in {kind for kind, *_ in nodes} for nodes in (alone, kept))
    assert result.plan.compressed
    assert (result.plan.latency.precision, result.plan.latency.rounds) == ("int8", 2)
    written, measured = onnx.load(small), onnx.load_from_string(result.int8.content)
    assert written.graph == measured.graph
    assert read_record(written).report["int8"]["distance"] == result.int8.distance
    assert 0 < result.int8.distance < 1
    assert "int8        " in str(result)
    with pytest.raises(UsageError, match="a file in 8 bits cannot be tuned"):
        tt.tune(result, None, IMAGES, steps=1)


@pytest.mark.parametrize("form", [(0, 1, 2), (0, 1), (1, 2), (0, 2), (0,), (1,), (2,)], ids=str)
@pytest.mark.parametrize("auto_pad", [None, "SAME_UPPER", "SAME_LOWER", "VALID"])
def test_a_chain_in_any_form_computes_the_same_and_is_counted_as_it_is_written(form, auto_pad, tmp_path):
    pads = {"auto_pad": auto_pad} if auto_pad else {"pads": [1, 0, 2, 1]}
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["c"], name="layer", strides=[2, 1], **pads),
        helper.make_node("Gemm", ["m", "g"], ["y"], name="head", transB=1, alpha=0.5),
    ]
    nodes.insert(1, helper.make_node("ReduceMean", ["c"], ["m"], axes=[2, 3], keepdims=0))
    weights = [tensor("w", numbers(12, 16, 3, 3)), tensor("b", numbers(12)), tensor("g", numbers(10, 12))]
    path = save(tmp_path / "m.onnx", nodes, [value("x", ["n", 16, 9, 8])], [value("y", 2)], weights)
    file, graph, found = open_layers(path)
    module = OnnxModule(file, graph, found.layers)
    rule, options = Ranks({"layer": (6, 5, 4), "head": 3}), Options(first="ht2")
    plan = make_plan(found.inventory, survey(module, found.inventory, options), rule, options)
    plan = replace(
        plan,
        layers=tuple(replace(p, form=form if p.name == "layer" else (0,)) for p in plan.layers),
    )
    chains = tt.apply(module, plan)
    merged = fuse_as_planned(chains, plan)
    assert [merged.get_submodule(name).cuts for name in ("layer", "head")] == [form, (0,)]
    as_they_are, as_run = (rewrite(graph, found.layers, module, each) for each in (chains, merged))
    feed = {"x": numbers(2, 16, 9, 8)}
    np.testing.assert_allclose(
        outputs_of(as_run, feed)[0], outputs_of(as_they_are, feed)[0], rtol=1e-3, atol=1e-4
    )
    small = tmp_path / "small.onnx"
    onnx.save(as_run, str(small))
    counted, written = count_as_run(plan, found.inventory), onnx_inventory(small)
    assert (written.parameters, written.macs) == (counted.parameters[1], counted.macs[1])
    assert sum(layer.macs[1] for layer in counted.layers) == counted.macs[1]


def test_external_data_are_measured_too(model, tmp_path, machine_of):
    (tmp_path / "in").mkdir()
    large = tmp_path / "in/model.onnx"
    onnx.save(
        onnx.load(model), str(large), save_as_external_data=True, location="weights.bin", size_threshold=0
    )
    opened = machine_of(large, 0.8)
    compress_onnx(large, tmp_path / "small.onnx", tt.Budget(latency=0.8))
    assert opened[-1] == structure(tmp_path / "small.onnx")


def test_an_impossible_target_is_refused_and_nothing_is_written(model, tmp_path, machine_of):
    machine_of(model, *[0.7] * 5)
    with pytest.raises(tt.UnreachableTargetError, match=r"nearest that was measured is 0\.7"):
        compress_onnx(model, tmp_path / "small.onnx", tt.Budget(latency="10x"))
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


def test_a_kernel_that_fits_only_as_the_file_pads_it_is_timed(tmp_path, machine_of):
    nodes = [helper.make_node("Conv", ["x", "w"], ["y"], name="a", strides=[2, 2], auto_pad="SAME_UPPER")]
    path = save(
        tmp_path / "m.onnx",
        nodes,
        [value("x", ["n", 256, 2, 2])],
        [value("y", 4)],
        [tensor("w", numbers(256, 256, 3, 3))],
    )
    machine_of(path, 0.8, dense=1e-5)
    result = compress_onnx(path, tmp_path / "small.onnx", tt.Budget(latency=0.8))
    assert len(result.plan.compressed) == 1


def clock_of(path, batch):
    file, graph, found = open_layers(path)
    runtime = get_runtime("onnxruntime", threads=1)
    return FileBenchmark(file, graph, found.layers, None, example_feed(graph), runtime, batch)


def test_the_batch_is_free_where_the_file_leaves_it_free(tmp_path):
    nodes = [
        helper.make_node("Conv", ["a", "w"], ["c"], name="layer"),
        helper.make_node("Mul", ["c", "b"], ["y"]),
    ]
    inputs = [value("a", ["n", 8, 9, 9]), value("b", [1, 16, 1, 1])]
    path = save(tmp_path / "free.onnx", nodes, inputs, [value("y", 4)], [tensor("w", numbers(16, 8, 3, 3))])
    clock = clock_of(path, 3)
    assert (clock.batch, clock.example_batch) == (3, 1)
    assert clock.seconds() > 0
    inputs[0] = value("a", [2, 8, 9, 9])
    path = save(tmp_path / "fixed.onnx", nodes, inputs, [value("y", 4)], [tensor("w", numbers(16, 8, 3, 3))])
    for batch in (2, None):
        clock = clock_of(path, batch)
        assert (clock.batch, clock.example_batch) == (2, 2)
    with pytest.raises(tt.UsageError, match=r"takes 2 samples at a time, so --batch 3 cannot be timed"):
        clock_of(path, 3)


def test_a_batch_that_the_model_does_not_run_with_is_one_line(tmp_path):
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], name="layer"),
        helper.make_node("Reshape", ["c", "shape"], ["y"]),
    ]
    tensors = [tensor("w", numbers(16, 8, 3, 3)), tensor("shape", np.array([1, 16 * 49]))]
    path = save(tmp_path / "m.onnx", nodes, [value("x", ["n", 8, 9, 9])], [value("y", 2)], tensors)
    with pytest.raises(tt.TuckertreeError, match=r"onnxruntime cannot run m\.onnx on \[2, 8, 9, 9\]"):
        clock_of(path, 2)


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (("--latency", "2x", "--runtime", "torch"), 2, "runs on onnxruntime or openvino, not on torch"),
        (("--latency", "2x", "--runtime", "torch-compile"), 2, "not on torch-compile"),
        (("--latency", "2x", "--runtime", "caffe"), 2, "unknown runtime 'caffe'"),
        (("--latency", "2x", "--macs", "0.5"), 2, "cannot be combined"),
        (("--latency", "2x", "--round-to", "0"), 2, "multiple of 1 or more"),
        (("--latency", "2x", "--objective", "moments"), 2, "needs calibration images"),
        (("--latency", "50x"), 3, "nearest that was measured is 0.7"),
    ],
)
def test_bad_targets_are_one_line_and_nothing_is_written(model, tmp_path, machine_of, options, code, message):
    machine_of(model, *[0.7] * 5)
    found, out, err = tuckertree("compress", model, "-o", tmp_path / "small.onnx", *options)
    assert (found, out) == (code, "")
    assert message in err
    assert err.count("\n") == 1
    assert not (tmp_path / "small.onnx").exists()


def test_the_command_says_what_was_measured(model, tmp_path, machine_of):
    machine_of(model, 0.8)
    target = ("--latency", "1.25x", "--threads", 1, "--batch", 2)
    code, out, _ = tuckertree("compress", model, "-o", tmp_path / "small.onnx", *target, "--json")
    assert code == 0
    found = json.loads(out)
    assert found["latency"] == found["plan"]["latency"]
    assert (found["latency"]["threads"], found["latency"]["batch"]) == (1, 2)
    assert found["latency"]["measured"] == pytest.approx(0.8)
    machine_of(model, 0.8)
    code, out, _ = tuckertree("compress", model, "-o", tmp_path / "small.onnx", *target, "--overwrite")
    assert code == 0
    for text in ("1.25x faster measured", "predicted from layers", "run as", "batch 2"):
        assert text in out


def test_a_file_is_timed_and_runs_as_it_was_measured(tmp_path, monkeypatch):
    pytest.importorskip("onnxscript")
    monkeypatch.setenv("TUCKERTREE_CACHE", str(tmp_path / "cache"))
    # How fast this machine is, and how steady, is not what is tested: any time is taken for the target.
    monkeypatch.setattr(target_module, "TOO_SLOW", 1e9)
    monkeypatch.setattr(target_module, "TOO_FAST", 0.0)
    monkeypatch.setattr(network_module, "_ROUNDS", 5)
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], name="large", pads=[1] * 4),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("Conv", ["r", "v"], ["y"], name="pointwise"),
    ]
    weights = [tensor("w", numbers(64, 64, 3, 3)), tensor("v", numbers(8, 64, 1, 1))]
    path = save(tmp_path / "m.onnx", nodes, [value("x", ["n", 64, 32, 32])], [value("y", 4)], weights)
    small = tmp_path / "small.onnx"
    rule = tt.Budget(latency="1.02x", runtime="onnxruntime", threads=1)
    result = compress_onnx(path, small, rule, include="large")
    found = result.plan.latency
    assert (found.threads, found.batch, found.rounds) == (1, 1, 1)
    assert 0 < found.predicted < 1
    assert 0 < found.low <= found.measured <= found.high
    (layer,) = result.plan.compressed
    (known,) = (each for each in onnx_inventory(path).layers if each.name == "large")
    kept = [
        form
        for form in fusion_variants(chain_stages(known.spec, range(3), (1, 1, 1)), range(3))
        if form.cuts == layer.form
    ]
    assert Counter(node.op_type for node in onnx.load(small).graph.node)["Conv"] == 1 + len(kept[0].stages)
    assert outputs_of(small, {"x": numbers(2, 64, 32, 32)})[0].shape == (2, 8, 32, 32)


def test_a_file_too_old_for_8_bits_is_one_line_before_any_work(tmp_path):
    nodes = [helper.make_node("Conv", ["x", "w"], ["y"])]
    path = save(
        tmp_path / "old.onnx",
        nodes,
        [value("x", ["n", 4, 8, 8])],
        [value("y", 4)],
        [tensor("w", numbers(8, 4, 3, 3))],
    )
    proto = onnx.load(path)
    proto.opset_import[0].version = 11
    onnx.save(proto, path)
    images = torch.randn(4, 4, 8, 8)
    with pytest.raises(tt.UsageError, match="is of opset 11; int8 needs 13 or later"):
        tt.compress(path, None, tt.Budget(latency="1.1x", precision="fp32,int8"), calibration=images)
