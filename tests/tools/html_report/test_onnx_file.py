"""The page of an ONNX file: of what compress made, as much as of a folder; of others, their layers."""

import json
from dataclasses import replace

import pytest
import torch

import tuckertree as tt
from tests.tools.cli.test_cli import tuckertree
from tests.tools.comparison.cases import tiny
from tests.tools.html_report.cases import COMMAND, HOSTILE, latency, read, section, sensitivity, shown, tuning
from tuckertree.io.onnx_record import read_record, write_record
from tuckertree.tools.html_report import write_report

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
pytest.importorskip("plotly")


def test_an_onnx_file_is_shown_without_being_run(tmp_path, monkeypatch):
    file = tt.export(tiny(), tmp_path / "net.onnx", torch.zeros(1, 3, 32, 32)).path

    monkeypatch.setattr(onnxruntime, "InferenceSession", None)
    page = shown(file)
    layers = section(page, "layers")["blocks"][0]["rows"]
    assert len(layers) == 4
    assert sum(row[4] for row in layers) == next(f["after"] for f in page["figures"] if f["label"] == "MACs")
    assert "does not hold them" in " ".join(page["missing"])


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A file that compress made of another."""
    made = tmp_path_factory.mktemp("onnx")
    file = tt.export(tiny(), made / "net.onnx", torch.zeros(1, 3, 32, 32)).path
    tt.compress(file, None, tt.Budget(macs=0.6), progress=False).save(
        made / "small.onnx", report={"commands": [COMMAND]}
    )
    return made / "small.onnx"


def rewritten(small, path, change):
    """The same file with something else in its record."""
    proto = onnx.load(small)
    record = change(read_record(proto))
    write_record(proto, record.name, record.plan, record.report)
    onnx.save(proto, path)
    return path


def test_an_onnx_file_of_compress_is_shown_as_a_folder_is(small, tmp_path):
    page = shown(small)
    assert "1.7x fewer MACs" in page["verdict"]
    assert page["origin"].startswith("small.onnx, of net.onnx, ")
    assert not any("changed" in line for line in page["warnings"])
    sections = ["network", "spectra", "curve", "decisions", "repeat", "layers", "file"]
    assert [each["id"] for each in page["sections"]] == sections
    assert COMMAND in section(page, "repeat")["blocks"][0]["lines"]
    assert not [line for line in section(page, "file")["blocks"][0]["lines"] if "metadata tuckertree" in line]
    file = tmp_path / "sensitivity.json"
    file.write_text(json.dumps(sensitivity()))
    output = tmp_path / "page.html"
    assert tuckertree("report", small, "--sensitivity", file, "-o", output)[0] == 0
    assert section(read(output).data, "sensitivity")
    code, _, err = tuckertree("report", small.with_name("net.onnx"), "--sensitivity", file, "-o", output)
    assert (code, err.count("\n")) == (2, 1)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_an_onnx_file_that_was_fitted_to_images_asks_for_none(small, tmp_path):
    images = torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    pages = {}
    for name, calibration in (("plain", None), ("fitted", images)):
        result = tt.compress(
            small.with_name("net.onnx"), None, tt.Budget(params=0.2), calibration=calibration, progress=False
        )
        assert result.relative_error > 0.25
        assert result.fitted == (calibration is not None)
        pages[name] = shown(result.save(tmp_path / f"{name}.onnx"))
    said = {name: any("without images" in line for line in page["warnings"]) for name, page in pages.items()}
    assert said == {"plain": True, "fitted": False}

    def of_before(record):  # files that do not say whether they were fitted
        return replace(record, report={name: x for name, x in record.report.items() if name != "fitted"})

    older = shown(rewritten(tmp_path / "fitted.onnx", tmp_path / "older.onnx", of_before))
    assert not any("without images" in line for line in older["warnings"])


def test_an_onnx_file_that_was_changed_since_says_so(small, tmp_path):
    proto = onnx.load(small)
    onnx.helper.set_model_props(proto, {entry.key: entry.value for entry in proto.metadata_props})
    proto.graph.initializer.append(onnx.helper.make_tensor("more", 1, [3], [1.0] * 3))
    onnx.save(proto, tmp_path / "changed.onnx")
    assert "it was changed since" in shown(tmp_path / "changed.onnx")["warnings"][0]


def test_no_name_in_an_onnx_file_puts_anything_into_the_page(small, tmp_path):
    def hostile(record):
        first, *others = record.plan.layers
        plan = replace(record.plan, layers=(replace(first, name=HOSTILE, reason=HOSTILE), *others))
        return replace(record, name=HOSTILE, plan=plan, report={**record.report, "commands": [HOSTILE]})

    page = read(write_report(rewritten(small, tmp_path / "odd.onnx", hostile)))
    plain = read(write_report(small, tmp_path / "plain.html"))
    assert page.tags == plain.tags
    assert [how for how, _ in page.scripts] == [how for how, _ in plain.scripts]
    assert not [each for each in page.attributes if each[1].startswith("on")]
    assert section(page.data, "network")["blocks"][0]["names"][0] == HOSTILE


@pytest.mark.parametrize(
    "more",
    [
        {"errors": {"0": "much"}},
        {"commands": "x"},
        {"survey": {"layers": 1}},
        {"tuning": {**tuning(), "course": [[1]]}},
        {"original": {"parameters": 10**400, "macs": 1}},
    ],
)
def test_an_onnx_file_whose_record_is_of_other_types_is_shown_without_it(small, tmp_path, more):
    odd = rewritten(small, tmp_path / "odd.onnx", lambda r: replace(r, report={**r.report, **more}))
    page = shown(odd)
    assert "cannot be read" in page["warnings"][0]
    assert len(page["warnings"][0]) < 1000
    assert [each["id"] for each in page["sections"]] == ["network", "layers", "file"]
    assert "fewer" not in page["verdict"]


def test_times_that_are_none_are_no_figures_of_an_onnx_file(small, tmp_path):
    timed = replace(latency(), missed=True)
    object.__setattr__(timed, "measured", 0.0)
    odd = rewritten(small, tmp_path / "odd.onnx", lambda r: replace(r, plan=replace(r.plan, latency=timed)))
    assert "positive" in shown(odd)["warnings"][0]
