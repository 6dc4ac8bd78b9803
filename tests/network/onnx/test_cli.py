"""ONNX models on the command line."""

import json

import numpy as np
import pytest

from tests.network.onnx.cases import helper, network, numbers, onnx, outputs_of, save, tensor, value
from tests.tools.cli.test_cli import tuckertree

LAYOUTS = {
    "NCHW": ((1, 3, 32, 32), onnx.TensorProto.FLOAT, ()),
    "NHWC": ((1, 32, 32, 3), onnx.TensorProto.FLOAT, (0, 3, 1, 2)),
    "bytes": ((1, 32, 32, 3), onnx.TensorProto.UINT8, (0, 3, 1, 2)),
    "grey": ((1, 1, 16, 24), onnx.TensorProto.FLOAT, ()),
}


@pytest.fixture
def model(tmp_path):
    return network(tmp_path / "model.onnx", size=32)


def image_network(path, layout):
    shape, kind, order = LAYOUTS[layout]
    channels = min(shape[1:])
    nodes = [
        helper.make_node("Cast", ["x"], ["f"], to=onnx.TensorProto.FLOAT),
        helper.make_node("Transpose", ["f"], ["t"], perm=order or [0, 1, 2, 3]),
        helper.make_node("Conv", ["t", "w"], ["c"], name="first"),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("Conv", ["r", "v"], ["y"], name="second"),
    ]
    weights = [tensor("w", numbers(32, channels, 5, 5)), tensor("v", numbers(32, 32, 3, 3))]
    return save(path, nodes, [value("x", shape, kind)], [value("y", 4)], weights)


def test_compress_writes_a_model_and_says_what_it_lost(model, tmp_path):
    small = tmp_path / "small.onnx"
    budget = ("--macs", "0.5", "--calibration", "demo", "--calibration-images", 64)
    code, out, _ = tuckertree("compress", model, "-o", small, *budget, "--json")
    assert code == 0
    found = json.loads(out)
    assert found["macs"][1] <= 0.5 * found["macs"][0]
    assert found["bytes"][1] == small.stat().st_size
    assert found["compared_on"] == "32 calibration images"
    assert {layer["name"] for layer in found["plan"]["layers"]} == {"one", "two", "up", "head"}
    code, out, err = tuckertree("compress", model, "-o", small, *budget)
    assert (code, "pass --overwrite" in err) == (1, True)
    code, out, _ = tuckertree("compress", model, "-o", small, *budget, "--overwrite")
    assert code == 0
    assert "relative error (ONNX Runtime, 32 calibration images)" in out
    assert f"saved       {small}" in out
    assert outputs_of(small, {"x": numbers(1, 3, 32, 32)})[0].shape == (1, 16)


def test_a_name_that_no_file_can_have_is_one_line(model, tmp_path):
    code, out, err = tuckertree("compress", model, "-o", tmp_path / f"{'x' * 300}.onnx", "--macs", "0.5")
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert err.endswith("File name too long\n")


def test_inspect_lists_the_layers_and_draws_the_curve(model):
    code, out, _ = tuckertree("inspect", model)
    assert code == 0
    assert "conv_transpose2d" in out
    assert "32x24x3x3" in out
    code, out, _ = tuckertree("inspect", model, "--json")
    assert [layer["name"] for layer in json.loads(out)["layers"]] == ["one", "two", "up", "head"]
    curve = ("--curve", "--by", "macs", "--json")
    code, out, _ = tuckertree("inspect", model, *curve, "--calibration", "demo", "--calibration-images", 16)
    points = json.loads(out)
    assert code == 0
    assert points[-1]["loss"] == 0 < points[0]["loss"]


def test_names_are_printed_as_they_stand(model):
    proto = onnx.load(model)
    proto.graph.node[0].name = "a[/b]\x1b[31m"
    onnx.save(proto, str(model))
    code, out, _ = tuckertree("inspect", model)
    assert code == 0
    assert "a[/b]?[31m" in out


@pytest.mark.parametrize("layout", LAYOUTS)
def test_images_come_in_the_layout_of_the_model(layout, tmp_path):
    path = image_network(tmp_path / "m.onnx", layout)
    options = ("--params", 0.5, "--calibration", "demo", "--calibration-images", 48, "--channels", "bgr")
    code, out, _ = tuckertree("compress", path, "-o", tmp_path / "small.onnx", *options, "--json")
    assert code == 0
    assert json.loads(out)["output_error"] < 0.9


def test_preprocessing_reaches_the_images(tmp_path):
    from tuckertree.tools.data import Preprocessing
    from tuckertree.tools.onnx_images import open_onnx_calibration

    model = image_network(tmp_path / "m.onnx", "NHWC")
    plain = Preprocessing((1, 1), mean=(0, 0, 0), std=(1, 1, 1), scale=1)
    shifted = Preprocessing((1, 1), mean=(1, 2, 3), std=(2, 2, 2), scale=1, channels="bgr")
    image = open_onnx_calibration(model, "demo", plain)[3].numpy()
    other = open_onnx_calibration(model, "demo", shifted)[3].numpy()
    assert image.shape == (32, 32, 3)
    np.testing.assert_allclose(other, (image[..., ::-1] - np.array([1, 2, 3])) / 2, rtol=1e-6)
    as_bytes = open_onnx_calibration(image_network(tmp_path / "b.onnx", "bytes"), "demo", plain)[3]
    np.testing.assert_array_equal(as_bytes.numpy(), image)


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (("--weights", "w.safetensors"), 2, "--weights is not supported for ONNX models"),
        (("--device", "cuda"), 2, "--device is not supported"),
        (("--mean", "0.5"), 2, "--mean belongs to --calibration"),
        (("--calibration", "demo", "--mean", "a,b"), 2, "--mean is one number or three"),
        (("--calibration", "demo", "--channels", "hsv"), 2, "rgb or bgr"),
        (("--input-size", "4,32,32"), 2, "--input-size does not fit"),
        (("--include", "nosuch"), 2, "no layer is named"),
    ],
)
def test_options_that_do_not_fit(model, tmp_path, options, code, message):
    found, _, err = tuckertree("compress", model, "-o", tmp_path / "small.onnx", "--macs", 0.5, *options)
    assert (found, message in err) == (code, True), err
    assert err.count("\n") == 1
    assert not (tmp_path / "small.onnx").exists()


def test_options_of_images_are_refused_without_images(tmp_path):
    code, _, err = tuckertree("compress", "demo", "-o", tmp_path / "o", "--macs", 0.5, "--scale", 1)
    assert (code, "--scale belongs to --calibration" in err) == (2, True)
    code, _, err = tuckertree("inspect", "demo", "--mean", "0.5")
    assert (code, "--mean belongs to --calibration" in err) == (2, True)


def test_targets_that_cannot_be_reached(model, tmp_path):
    code, _, err = tuckertree("compress", model, "-o", tmp_path / "small.onnx", "--macs", "0.001")
    assert (code, "cannot be met by this network; the nearest within reach" in err) == (3, True)
    code, _, err = tuckertree(
        "compress", tmp_path / "no.onnx", "-o", tmp_path / "small.onnx", "--macs", "0.5"
    )
    assert (code, "cannot be read: No such file" in err) == (1, True)
