"""Files that cannot be used: one clear line each, and nothing written."""

import numpy as np
import pytest

import tuckertree as tt
from tests.network.onnx.cases import helper, network, numbers, onnx, save, tensor, value
from tuckertree.network.onnx import read_onnx
from tuckertree.network.onnx.files import OnnxFile
from tuckertree.onnx_models import compress_onnx


@pytest.fixture
def model(tmp_path):
    return network(tmp_path / "model.onnx")


@pytest.fixture
def external(tmp_path, model):
    """A model with external data, and a function that changes an entry of where its tensor w2 lies."""
    path = tmp_path / "external.onnx"
    onnx.save(
        onnx.load(model), str(path), save_as_external_data=True, location="weights.bin", size_threshold=0
    )

    def point(key, to):
        proto = onnx.load(path, load_external_data=False)
        place = next(t for t in proto.graph.initializer if t.name == "w2").external_data
        next(entry for entry in place if entry.key == key).value = str(to)
        path.write_bytes(proto.SerializeToString())
        return path

    return point


def refused(path, message):
    with pytest.raises(tt.TuckertreeError, match=message) as caught:
        read_onnx(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def test_no_file_and_no_model(tmp_path, model):
    refused(tmp_path / "nosuch.onnx", "cannot be read: No such file")
    for content in (b"", b"hello, world", bytes(100), model.read_bytes()[:-100], model.read_bytes()[:7]):
        path = tmp_path / "bad.onnx"
        path.write_bytes(content)
        refused(path, "is not an ONNX model, or a truncated one")


def test_a_model_that_fails_the_checker(tmp_path):
    node = helper.make_node("Relu", ["nosuch"], ["y"])
    refused(
        save(tmp_path / "m.onnx", [node], [value("x", [1])], [value("y", 1)]), "is not a valid ONNX model"
    )
    node = helper.make_node("Frobnicate", ["x"], ["y"], name="third")
    refused(save(tmp_path / "m.onnx", [node], [value("x", [1])], [value("y", 1)]), "Frobnicate.*Name: third")


@pytest.mark.parametrize("place", ["/etc/hostname", "../weights.bin", "sub/../../weights.bin", ""])
def test_external_data_outside_the_folder(external, tmp_path, place):
    (tmp_path.parent / "weights.bin").touch()
    refused(external("location", place), "outside the model's folder; that is refused")


def test_external_data_behind_a_link(external, tmp_path):
    (tmp_path / "link").symlink_to("/etc")
    refused(external("location", "link/hostname"), "outside the model's folder")


@pytest.mark.parametrize("place", ["a\0b", "x" * 300])
def test_external_data_under_a_name_that_cannot_be(external, place):
    refused(external("location", place), "no name of a file|is not an ONNX model")


def test_weights_of_the_model_itself_are_not_replaced(external, tmp_path):
    path = external("location", "weights.bin")
    (tmp_path / "weights.bin").rename(tmp_path / "small.onnx.data")
    proto = onnx.load(path, load_external_data=False)
    for t in proto.graph.initializer:
        if t.external_data:
            t.external_data[0].value = "small.onnx.data"
    path.write_bytes(proto.SerializeToString())
    with pytest.raises(
        tt.TuckertreeError, match=r"small\.onnx\.data holds weights of .*external\.onnx itself"
    ):
        compress_onnx(path, tmp_path / "small.onnx", tt.Budget(macs=0.5), overwrite=True)
    assert read_onnx(path).size > 0


def test_external_data_that_are_not_there(external, tmp_path):
    refused(external("location", "other.bin"), "which is missing")
    external("location", "weights.bin")
    refused(external("offset", "ten"), "no number")
    refused(external("offset", -4096), "truncated")
    refused(external("offset", 10**9), "truncated")
    path = external("offset", 0)
    (tmp_path / "weights.bin").write_bytes(b"short")
    refused(path, "truncated")


def test_an_operator_that_onnx_runtime_lacks(tmp_path):
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], name="layer"),
        helper.make_node("Nonesuch", ["c"], ["y"], domain="com.example"),
    ]
    path = save(
        tmp_path / "m.onnx",
        nodes,
        [value("x", [1, 8, 9, 9])],
        [value("y", 4)],
        [tensor("w", numbers(8, 8, 3, 3))],
    )
    proto = onnx.load(path)
    proto.opset_import.add(domain="com.example", version=1)
    onnx.save(proto, str(path))
    with pytest.raises(tt.TuckertreeError, match=r"m\.onnx: ONNX Runtime cannot run the model.*Nonesuch"):
        compress_onnx(path, tmp_path / "small.onnx", tt.Energy(0.5))
    assert [p.name for p in tmp_path.iterdir()] == ["m.onnx"]


def test_an_opset_that_onnx_runtime_does_not_know(tmp_path):
    node = helper.make_node("Relu", ["x"], ["y"])
    path = save(tmp_path / "m.onnx", [node], [value("x", [1, 2])], [value("y", 2)], opset=99)
    with pytest.raises(tt.TuckertreeError, match=r"run the model: ONNX Runtime only .* Opset 99"):
        compress_onnx(path, tmp_path / "small.onnx", tt.Energy(0.5))


def test_weights_that_are_not_finite(model, tmp_path):
    proto = onnx.load(model)
    for t in proto.graph.initializer:
        if t.name == "w2":
            t.CopyFrom(tensor("w2", np.full(tuple(t.dims), np.nan, np.float32)))
    onnx.save(proto, str(model))
    with pytest.raises(tt.TuckertreeError, match=r"two: .*NaN"):
        compress_onnx(model, tmp_path / "small.onnx", tt.Energy(0.5))


def test_a_tensor_with_fewer_values_than_its_shape(model, tmp_path):
    proto = onnx.load(model)
    for t in proto.graph.initializer:
        t.raw_data = t.raw_data[:-4] if t.name == "w2" else t.raw_data
    onnx.save(proto, str(model))
    with pytest.raises(tt.TuckertreeError, match=r"w2|raw_data|size"):
        compress_onnx(model, tmp_path / "small.onnx", tt.Energy(0.5))
    file = OnnxFile(model, proto, external=False)
    with pytest.raises(tt.TuckertreeError, match="'w2' cannot be read"):
        file.array(next(t for t in proto.graph.initializer if t.name == "w2"))


def test_outputs_that_may_not_be_written(model, tmp_path):
    def run(output, **options):
        compress_onnx(model, output, tt.Energy(0.8), **options)

    with pytest.raises(tt.UsageError, match=r"does not end in \.onnx"):
        run(tmp_path / "small")
    with pytest.raises(tt.TuckertreeError, match="is the model itself"):
        run(model, overwrite=True)
    (tmp_path / "folder.onnx").mkdir()
    with pytest.raises(tt.TuckertreeError, match="is not a file"):
        run(tmp_path / "folder.onnx", overwrite=True)
    (tmp_path / "old.onnx").write_text("old")
    with pytest.raises(tt.TuckertreeError, match="pass overwrite=True"):
        run(tmp_path / "old.onnx")
    assert (tmp_path / "old.onnx").read_text() == "old"
    run(tmp_path / "old.onnx", overwrite=True)
    read_onnx(tmp_path / "old.onnx")
    (tmp_path / "file").touch()
    with pytest.raises(tt.TuckertreeError, match="cannot write"):
        run(tmp_path / "file/small.onnx")


@pytest.mark.parametrize("fault", [KeyboardInterrupt, OSError("disk full"), tt.TuckertreeError("differs")])
def test_what_goes_wrong_at_the_end_leaves_the_old_file(model, tmp_path, monkeypatch, fault):
    def fail(*arguments):
        raise fault

    (tmp_path / "out").mkdir()
    small = tmp_path / "out/small.onnx"
    small.write_text("old")
    monkeypatch.setattr("tuckertree.compression.onnx_output.compare_sessions", fail)
    with pytest.raises((KeyboardInterrupt, tt.TuckertreeError)):
        compress_onnx(model, small, tt.Energy(0.8), overwrite=True)
    assert [p.name for p in small.parent.iterdir()] == ["small.onnx"]
    assert small.read_text() == "old"
