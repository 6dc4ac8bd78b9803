"""What an ONNX file keeps of how it was made, and what files of others cannot do with it."""

import base64
import json
import zlib

import pytest
import torch

import tuckertree as tt
from tests.tools.comparison.cases import tiny
from tuckertree._base.reading import read_as
from tuckertree.io import onnx_record
from tuckertree.io.onnx_record import KEY, drop_record, read_record, write_record
from tuckertree.planning import SurveyRecord

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
onnxruntime = pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    torch.manual_seed(0)
    return tt.export(tiny(), tmp_path_factory.mktemp("made") / "net.onnx", torch.zeros(1, 3, 32, 32)).path


@pytest.fixture(scope="module")
def made(model):
    """A compressed file and what it came from."""
    small = model.with_name("small.onnx")
    result = tt.compress(model, None, tt.Budget(macs=0.6), progress=False)
    result.save(small, report={"commands": ["tuckertree compress net.onnx"]})
    return result, small


def packed(data):
    text = data if isinstance(data, bytes) else json.dumps(data).encode()
    return base64.b64encode(zlib.compress(text)).decode()


def with_value(value):
    proto = onnx.ModelProto()
    proto.metadata_props.add(key=KEY, value=value)
    return proto


def said(made):
    """The record of a file, as the data that it is."""
    found = {entry.key: entry.value for entry in onnx.load(made[1]).metadata_props}
    return json.loads(zlib.decompress(base64.b64decode(found[KEY])))


def test_a_file_keeps_what_a_folder_keeps(made):
    result, small = made
    record = read_record(onnx.load(small))
    assert record.plan == result.plan
    assert (record.name, record.tuckertree) == ("net.onnx", tt.__version__)
    assert record.report["commands"] == ["tuckertree compress net.onnx"]
    assert record.report["errors"] == result.errors
    assert record.report["survey"]["layers"].keys() == result.survey.layers.keys()
    assert record.report["environment"]["torch"] == torch.__version__


def test_a_file_keeps_the_ranks_on_offer_of_methods_without_spectra(model, tmp_path):
    result = tt.compress(model, None, tt.Budget(macs=0.6), methods=("depthwise",), progress=False)
    result.save(tmp_path / "small.onnx")
    survey = read_as(SurveyRecord, read_record(onnx.load(tmp_path / "small.onnx")).report["survey"])
    assert survey == result.survey
    assert [record.offered for _, record in survey.known(result.plan).values()] != []


def test_the_checker_and_the_runtime_take_it_and_the_network_is_as_without(made, tmp_path):
    _, small = made
    onnx.checker.check_model(str(small), full_check=True)
    session = onnxruntime.InferenceSession(small)
    assert KEY in session.get_modelmeta().custom_metadata_map
    bare = onnx.load(small)
    drop_record(bare)
    assert not bare.metadata_props
    onnx.save(bare, tmp_path / "bare.onnx")
    x = {session.get_inputs()[0].name: torch.randn(1, 3, 32, 32).numpy()}
    one, other = (
        each.run(None, x)[0] for each in (session, onnxruntime.InferenceSession(tmp_path / "bare.onnx"))
    )
    assert (one == other).all()
    assert len(onnx.load(small).metadata_props[-1].value) < 20_000


def test_the_same_again_is_the_same_file(model, made, tmp_path):
    again = tt.compress(model, None, tt.Budget(macs=0.6), progress=False)
    again.save(tmp_path / "again.onnx", report={"commands": ["tuckertree compress net.onnx"]})
    assert (tmp_path / "again.onnx").read_bytes() == made[1].read_bytes()


def test_what_is_compressed_again_tells_of_itself_alone(made, tmp_path):
    result = tt.compress(made[1], None, tt.Budget(params=0.9), progress=False)
    result.save(tmp_path / "smaller.onnx")
    smaller = onnx.load(tmp_path / "smaller.onnx")
    assert [entry.key for entry in smaller.metadata_props].count(KEY) == 1
    record = read_record(smaller)
    assert (record.name, record.plan) == ("small.onnx", result.plan)
    assert "commands" not in record.report


def test_a_model_without_a_record_has_none():
    assert read_record(onnx.ModelProto()) is None


@pytest.mark.parametrize(
    "value",
    [
        "",
        "no base64 \U0001f600",
        base64.b64encode(b"no zlib").decode(),
        packed(b"no json"),
        packed(b"\xff"),
        packed(b"[" * 100_000),
        packed([]),
        packed({"format": 2}),
        packed({"format": 1}),
        packed({"format": 1, "plan": {}}),
        packed({})[:-8],
    ],
    ids=str,
)
def test_a_damaged_record_is_refused(value):
    with pytest.raises(tt.TuckertreeError, match="record"):
        read_record(with_value(value))


@pytest.mark.parametrize(
    "change",
    [
        {"code": "x"},
        {"name": 1},
        {"plan": None},
        {"report": []},
        {"report": {"errors": float("nan")}},
        {"format": "1"},
    ],
    ids=str,
)
def test_what_is_of_another_type_is_refused(made, change):
    with pytest.raises(tt.TuckertreeError, match="record"):
        read_record(with_value(packed({**said(made), **change})))


def test_no_more_is_unpacked_than_may_be_there(monkeypatch):
    bomb = with_value(packed(b" " * 10_000_000))
    monkeypatch.setattr(onnx_record, "_LARGEST", 1_000_000)
    assert len(bomb.metadata_props[0].value) < 100_000
    with pytest.raises(tt.TuckertreeError, match="larger than any of ours"):
        read_record(bomb)
    with pytest.raises(tt.TuckertreeError, match="larger than any of ours"):
        read_record(with_value("A" * 1_000_001))


def test_a_record_that_would_be_too_large_is_left_out(made, monkeypatch):
    proto, plan = onnx.load(made[1]), made[0].plan
    monkeypatch.setattr(onnx_record, "_LARGEST", 100)
    write_record(proto, "net.onnx", plan, {})
    assert not proto.metadata_props
