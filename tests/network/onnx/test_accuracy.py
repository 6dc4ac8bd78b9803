"""ONNX files: a budget said in accuracy, and what each layer alone costs."""

import json

import numpy as np
import pytest
import torch

import tuckertree as tt
from tests.network.onnx.cases import IMAGES, helper, network, numbers, onnx, save, tensor, value
from tests.tools.cli.test_cli import tuckertree
from tuckertree.compression.accuracy.parts import Part
from tuckertree.compression.accuracy.trials import PROOF
from tuckertree.network.onnx import SessionModule


def classifier(path, batch="batch"):
    """The network with its mean output taken off, so that it answers several classes."""
    network(path)
    mean = SessionModule(path)(IMAGES).mean(0).numpy()
    proto = onnx.load(path)
    proto.graph.node[-1].output[0] = "logits"
    proto.graph.initializer.append(tensor("mean", mean))
    proto.graph.node.append(helper.make_node("Sub", ["logits", "mean"], ["y"]))
    for each in (*proto.graph.input, *proto.graph.output):
        axis = each.type.tensor_type.shape.dim[0]
        axis.Clear()
        setattr(axis, "dim_param" if isinstance(batch, str) else "dim_value", batch)
    onnx.save(proto, str(path))
    return path


@pytest.fixture
def model(tmp_path):
    return classifier(tmp_path / "model.onnx")


def answers(path, images):
    return SessionModule(path)(images).argmax(1)


def labelled(path, count=200):
    images = torch.from_numpy(numbers(count, 3, 16, 16, seed=3)).cumsum(2).cumsum(3) / 4
    labels = answers(path, images)
    assert len(labels.unique()) > 2
    return images, labels


def test_the_file_written_keeps_the_accuracy_on_images_that_took_no_part(model, tmp_path):
    images, labels = labelled(model)
    rule = tt.Budget(max_drop=8.0)
    result = tt.compress(model, rule=rule, calibration=IMAGES, data=(images, labels), progress=False)
    small = result.save(tmp_path / "small.onnx")
    proof, wanted = (
        torch.cat(each) for each in zip(*Part([(images, labels)], (1, 1), PROOF, 8), strict=True)
    )
    dropped = 100 * float((answers(small, proof) != wanted).double().mean())
    assert result.accuracy.held
    assert dropped == pytest.approx(result.accuracy.loss.lost, abs=1.01)  # one answer may be near a tie
    assert result.plan.macs[1] < 0.9 * result.plan.macs[0]
    assert json.loads(json.dumps(result.summary()))["accuracy"]["loss"]["images"] == 100


@pytest.mark.parametrize("batch", [1, 4])
def test_a_file_that_prescribes_its_batch_is_tried_on_every_image(tmp_path, batch):
    path, fixed = classifier(tmp_path / "free.onnx"), classifier(tmp_path / "fixed.onnx", batch)
    images, labels = labelled(path, 30)
    rule = tt.Budget(max_drop=20.0, best_effort=True)
    result = tt.compress(fixed, rule=rule, calibration=IMAGES[:32], data=(images, labels), progress=False)
    assert result.accuracy.loss.images == 15
    assert result.accuracy.loss.top1[0] == 100


def test_agreement_of_a_file_is_searched_for_on_its_calibration_images(model):
    result = tt.compress(model, rule=tt.Budget(agreement=0.8), calibration=IMAGES, progress=False)
    assert result.accuracy.loss.kind == "answers"
    assert result.accuracy.loss.images == 16


def test_outputs_of_several_kinds_agree_by_their_distance(tmp_path):
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], name="first"),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("Conv", ["r", "v"], ["y"], name="second"),
    ]
    weights = [tensor("w", numbers(16, 3, 5, 5)), tensor("v", numbers(24, 16, 3, 3))]
    outputs = [value("r", ["n", 16, 12, 12]), value("y", ["n", 24, 10, 10])]
    path = save(tmp_path / "two.onnx", nodes, [value("x", ["n", 3, 16, 16])], outputs, weights)
    result = tt.compress(path, rule=tt.Budget(agreement=0.7), calibration=IMAGES, progress=False)
    assert result.accuracy.loss.kind == "outputs"
    assert result.accuracy.held


def test_each_layer_of_a_file_alone(model):
    found = tt.sensitivity(model, calibration=IMAGES, progress=False)
    assert [layer.name for layer in found.layers] == ["one", "two", "up", "head"]
    assert all(layer.distance > 0 and layer.macs[1] * 2 <= layer.macs[0] for layer in found.layers)


def test_both_on_the_command_line(tmp_path):
    small, proto = tmp_path / "small.onnx", onnx.load(network(tmp_path / "model.onnx"))
    for each in proto.graph.input:
        for axis in (2, 3):
            each.type.tensor_type.shape.dim[axis].dim_value = 32
    large = tmp_path / "large.onnx"
    onnx.save(proto, str(large))
    code, out, err = tuckertree(
        "compress", large, "-o", small, "--agreement", 0.5, "--calibration", "demo", "--calibration-images", 48,
        "--json",
    )  # fmt: skip
    assert code == 0, err
    kept = json.loads(out)["accuracy"]
    assert kept["held"]
    assert kept["loss"]["images"] == 12
    assert small.exists()
    options = ("--sensitivity", "--calibration", "demo", "--calibration-images", 16)
    code, out, _ = tuckertree("inspect", large, *options, "--json")
    assert code == 0
    assert [row["name"] for row in json.loads(out)["layers"]] == ["one", "two", "up", "head"]
    code, out, _ = tuckertree("inspect", large, *options)
    assert "16 images of demo (train)" in out
    assert np.all([name in out for name in ("distance of", "equal", "up")])
