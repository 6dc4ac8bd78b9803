"""Results that were damaged, or made to do harm: one line, or a page that says what there is."""

import json
from dataclasses import asdict, replace

import pytest

import tuckertree as tt
from tests.tools.cli.test_cli import tuckertree
from tests.tools.comparison.cases import tiny
from tests.tools.html_report.cases import accuracy, comparison, outcomes, read, saved, section, sensitivity
from tuckertree.tools.html_report import write_report
from tuckertree.tools.html_report.making import page_of

pytest.importorskip("plotly")
HUGE = 10**400


def changed(folder, name, *keys, to):
    """A folder in one of whose files something else stands at some place."""
    data = place = json.loads((folder / name).read_text())
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = to
    (folder / name).write_text(json.dumps(data))
    return folder


@pytest.mark.parametrize("pair", [[HUGE, 1], [1, HUGE], [2**63, 1]])
@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("config.json", ("plan", "parameters")),
        ("config.json", ("plan", "macs")),
        ("config.json", ("plan", "layers", 0, "macs")),
        ("report.json", ("accuracy", "steps", 0, "macs")),
        ("report.json", ("accuracy", "steps", 0, "parameters")),
    ],
)
def test_counts_that_no_network_has_are_refused_in_one_line(tmp_path, name, keys, pair):
    folder = changed(saved(tmp_path / "odd", accuracy=accuracy()), name, *keys, to=pair)
    code, out, err = tuckertree("report", folder)
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert name in err
    assert "2^63" in err


@pytest.mark.parametrize("end", ["low", "high"])
def test_half_an_interval_is_refused_in_one_line(tmp_path, end):
    folder = changed(
        saved(tmp_path / "odd", accuracy=accuracy()), "report.json", "accuracy", "loss", end, to=None
    )
    code, out, err = tuckertree("report", folder)
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert "an interval has both a low and a high end" in err


def test_counts_of_a_sensitivity_or_a_cell_are_refused_alike(tmp_path):
    file = tmp_path / "sensitivity.json"
    file.write_text(json.dumps(sensitivity()))
    changed(tmp_path, file.name, "layers", 0, "macs", to=[1, HUGE])
    code, _, err = tuckertree("report", saved(tmp_path / "small"), "--sensitivity", file)
    assert (code, err.count("\n"), "2^63" in err) == (1, 1, True)
    compared = comparison(tmp_path / "compared", outcomes())
    code, _, err = tuckertree("report", changed(compared / "cells", "dense.json", "macs", to=HUGE).parent)
    assert (code, err.count("\n"), "2^63" in err) == (1, 1, True)


def test_sizes_of_an_onnx_file_that_no_tensor_has_are_not_multiplied(tmp_path):
    onnx = pytest.importorskip("onnx")
    weight = onnx.helper.make_tensor("w", 1, [2, 2], [1.0] * 4)
    shape = [2**62] * 20
    x, y = (onnx.helper.make_tensor_value_info(name, 1, [*shape, 2]) for name in "xy")
    node = onnx.helper.make_node("MatMul", ["x", "w"], ["y"])
    model = onnx.helper.make_model(onnx.helper.make_graph([node], "net", [x], [y], [weight]))
    onnx.save(model, tmp_path / "net.onnx")
    page = page_of(tmp_path / "net.onnx").to_json()
    assert [figure["label"] for figure in page["figures"]] == ["Parameters", "Bytes"]
    assert "too large" in " ".join(page["missing"])


def test_a_name_that_is_no_text_is_shown_all_the_same(tmp_path):
    odd = changed(saved(tmp_path / "odd"), "config.json", "architecture", to="\ud800")
    page = read(write_report(odd))
    assert "?, compressed" in next(iter(page.titles))


def test_spectra_of_other_layers_leave_the_section_out(tmp_path):
    odd = saved(tmp_path / "odd", methods=("ht2", "svd"))
    survey = json.loads((odd / "report.json").read_text())["survey"]
    name, layer = next(iter(survey["layers"].items()))
    fewer = {"bonds": [*layer["bonds"], layer["bonds"][0]], "stages": []}
    for layers in ({"another": layer}, {name: fewer}):
        changed(odd, "report.json", "survey", "layers", to=layers)
        page = page_of(odd).to_json()
        assert "spectra" not in [each["id"] for each in page["sections"]]
        assert section(page, "curve")
        assert any(line.startswith("Spectra: no layer") for line in page["missing"])


@pytest.mark.parametrize("kept", [None, {"layers": {}, "curve": []}])
def test_a_folder_of_a_plan_that_was_given_says_that_it_keeps_no_spectra(tmp_path, kept):
    import torch

    model, x = tiny(), torch.zeros(1, 3, 32, 32)
    given = saved(tmp_path / "given", rule=tt.plan(model, x, tt.Budget(macs=0.5)))
    if kept is not None:  # as folders of before do
        changed(given, "report.json", "survey", to=kept)
    missing = page_of(given).to_json()["missing"]
    assert any("none are kept" in line for line in missing)
    assert not any("no layer has a method" in line for line in missing)


def test_a_comparison_without_scores_has_no_empty_plot(tmp_path):
    bare = [replace(each, score=None) for each in outcomes()]
    page = page_of(comparison(tmp_path / "compared", bare)).to_json()
    assert section(page, "front")["blocks"] == []
    assert len(section(page, "table")["blocks"][0]["rows"]) == len([asdict(each) for each in bare])
