"""What a page shows of a result, and what it cannot be made to do."""

import base64
import hashlib
import json
from importlib.resources import files
from itertools import pairwise

import pytest

import tuckertree as tt
from tests.tools.cli.test_cli import tuckertree
from tests.tools.html_report.cases import (
    COMMAND,
    HOSTILE,
    accuracy,
    by_layer,
    latency,
    policy,
    quantized,
    read,
    rename,
    saved,
    section,
    sensitivity,
    shown,
    training,
    tuning,
)
from tuckertree.io import read_config, read_plan
from tuckertree.tools.html_report import default_output, write_report

pytest.importorskip("plotly")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return saved(tmp_path_factory.mktemp("made") / "small")


def test_a_folder_is_shown_with_all_of_its_layers(folder, tmp_path):
    page = read(write_report(folder, tmp_path / "page.html")).data
    plan = read_plan(folder)
    table = section(page, "decisions")["blocks"][0]
    assert [row[0] for row in table["rows"]] == [layer.name for layer in plan.layers]
    strip, bars = section(page, "network")["blocks"]
    assert strip["names"] == [layer.name for layer in plan.layers]
    assert bars["views"][0]["series"][1]["y"] == [layer.macs[1] for layer in plan.layers]
    spectra = section(page, "spectra")["blocks"][0]
    assert [layer["name"] for layer in spectra["layers"]] == [layer.name for layer in plan.compressed]
    assert COMMAND in section(page, "repeat")["blocks"][0]["lines"]
    curve, own = section(page, "curve")["blocks"][0]["views"][0]["series"]
    assert own["x"] == [plan.macs[1]]
    assert all(one <= other for one, other in pairwise(curve["x"]))


def test_layers_of_methods_without_spectra_are_shown_with_their_ranks_on_offer(tmp_path):
    tried = saved(tmp_path / "tried", methods=("depthwise",))
    part = section(read(write_report(tried)).data, "spectra")
    plan = read_plan(tried)
    assert "depthwise has no spectrum" in part["text"]
    shown_layers = {layer["name"]: layer for layer in part["blocks"][0]["layers"]}
    assert list(shown_layers) == [layer.name for layer in plan.compressed] != []
    for layer in plan.compressed:
        offered = shown_layers[layer.name]["offered"]
        at = offered["ranks"].index(layer.ranks[0])
        assert offered["squared"][at] == pytest.approx(layer.bound**2, rel=1e-3)
    known = json.loads((tried / "report.json").read_text())
    known["survey"]["layers"] = {}  # as folders of before do
    (tried / "report.json").write_text(json.dumps(known))
    page = shown(tried)
    assert "spectra" not in [each["id"] for each in page["sections"]]
    assert any("ranks on offer" in line for line in page["missing"])


def test_the_verdict_says_only_what_was_measured(folder, tmp_path):
    ratio = "2.0x fewer MACs"
    assert ratio in shown(folder)["verdict"]
    assert shown(folder)["verdict"].endswith("accuracy not measured")
    proved = shown(saved(tmp_path / "proved", accuracy=accuracy()))
    assert proved["verdict"].endswith("top-1 91.7 -> 91.2 \N{PLUS-MINUS SIGN} 0.5")
    tuned = shown(saved(tmp_path / "tuned", tuning=tuning()))
    assert "outputs 12.5% from the original's, accuracy not measured" in tuned["verdict"]
    recipe = {
        "original": {"parameters": 2, "macs": 2, "top1": 91.7},
        "compressed": {"parameters": 1, "macs": 1, "top1": 91.3},
    }
    assert shown(saved(tmp_path / "recipe", **recipe))["verdict"].endswith("top-1 91.7 -> 91.3")


def test_what_was_measured_before_fine_tuning_is_no_verdict_on_what_came_of_it(tmp_path):
    page = shown(saved(tmp_path / "trained", accuracy=accuracy(), training=training()))
    assert page["verdict"].endswith("top-1 83.0 on validation images after fine-tuning")
    assert [
        figure["note"].endswith("before fine-tuning")
        for figure in page["figures"]
        if figure["label"] == "Top-1"
    ] == [True]
    assert [view["label"] for view in section(page, "training")["blocks"][0]["views"]] == [
        "loss",
        "top-1 in percent",
        "learning rate",
    ]
    blind = training(history=[{"epoch": 1, "train_loss": 2.0}])
    assert "not measured" in shown(saved(tmp_path / "blind", accuracy=accuracy(), training=blind))["verdict"]


def test_a_measured_latency_comes_first(folder, tmp_path):
    config = json.loads((folder / "config.json").read_text())
    config["plan"]["latency"] = latency().to_json()
    for layer in config["plan"]["layers"]:
        layer["seconds"] = [2e-3, 1e-3]
    timed = saved(tmp_path / "timed")
    (timed / "config.json").write_text(json.dumps(config))
    page = shown(timed)
    assert page["verdict"].startswith("2.0x faster, ")
    assert section(page, "network")["blocks"][1]["views"][0]["y"]["kind"] == "milliseconds"
    assert "share of its time saved" in [
        each["label"] for each in section(page, "network")["blocks"][0]["measures"]
    ]
    assert not any(line.startswith("Latency") for line in page["missing"])


def test_a_network_in_8_bits_is_said_to_be_one_and_its_layers_have_their_precision(folder, tmp_path):
    first, *others = (layer.name for layer in read_plan(folder).layers)
    page = shown(quantized(tmp_path / "int8", fp32=(first,)))
    assert page["verdict"].startswith("2.0x faster in int8, ")
    assert page["verdict"].endswith("outputs 4.0% from the original's in int8, accuracy not measured")
    strip = section(page, "network")["blocks"][0]
    assert ["in fp32" in note for note in strip["notes"]] == [True, *(False for _ in others)]
    table = section(page, "decisions")["blocks"][0]
    place = [column["label"] for column in table["columns"]].index("precision")
    assert [row[place] for row in table["rows"]] == ["fp32", *("int8" for _ in others)]
    tried, losses, facts = section(page, "precision")["blocks"]
    assert [row[1:] for row in tried["rows"]] == [[2.0, 0.04, "yes"], [1.0, None, "no"]]
    assert losses["views"][0]["series"][0]["names"] == [first, *others]
    assert f"layers that stay in fp32: {first}" in facts["lines"]
    trained = shown(quantized(tmp_path / "trained", training=training()))
    assert "int8" not in trained["verdict"].split(", ")[-1]
    assert "precision" not in [each["id"] for each in shown(folder)["sections"]]
    assert "precision" not in [
        column["label"] for column in section(shown(folder), "decisions")["blocks"][0]["columns"]
    ]


def test_time_of_a_network_in_8_bits_that_is_not_there_any_more_is_said_to_be_of_it(tmp_path):
    folder = quantized(tmp_path / "int8", training=training())
    config = json.loads((folder / "config.json").read_text())
    del config["int8"]
    (folder / "config.json").write_text(json.dumps(config))
    page = shown(folder)
    assert "faster in int8" in page["verdict"]
    assert any("export --quantize int8" in line for line in page["missing"])
    assert "Bytes in int8" not in [figure["label"] for figure in page["figures"]]


def test_figures_that_cannot_be_do_not_break_the_page(tmp_path):
    odd = saved(tmp_path / "odd", distances={"held out": 1e300}, training=training(history=[{}]))
    config = json.loads((odd / "config.json").read_text())
    for layer in config["plan"]["layers"]:
        layer |= {"macs": [0, 0], "parameters": [0, 0], "seconds": [0.0, 0.0]}
    config["plan"] |= {"macs": [0, 0], "parameters": [0, 0]}
    (odd / "config.json").write_text(json.dumps(config))
    assert read(write_report(odd)).data["sections"]
    config["plan"]["latency"] = latency().to_json()
    for name, value in (
        ("measured", 0.0),
        ("measured", 5e-324),
        ("low", 1e-7),
        ("high", 1e7),
        ("seconds", 0.0),
    ):
        spoilt = {**config["plan"], "latency": {**config["plan"]["latency"], name: value}}
        (odd / "config.json").write_text(json.dumps({**config, "plan": spoilt}))
        with pytest.raises(tt.TuckertreeError, match="positive"):
            write_report(odd, overwrite=True)


def test_a_folder_without_measurements_says_what_is_missing(tmp_path):
    bare = saved(tmp_path / "bare")
    (bare / "report.json").unlink()
    page = shown(bare)
    missing = " ".join(page["missing"])
    for what in ("Accuracy", "Latency", "Errors", "Spectra", "Versions", "command"):
        assert what in missing
    assert [each["id"] for each in page["sections"]] == ["network", "decisions", "repeat"]


def test_searches_tunings_and_layers_are_shown_where_they_are_kept(folder, tmp_path):
    more = {"accuracy": accuracy(held=False), "tuning": tuning(), "by_layer": by_layer(read_plan(folder))}
    page = shown(saved(tmp_path / "all", **more))
    rows = section(page, "accuracy")["blocks"][1]["rows"]
    assert [row[-1] for row in rows] == ["no", "yes", "out of reach", "no"]
    assert "was not kept" in " ".join(page["warnings"])
    plot, facts = section(page, "tuning")["blocks"]
    assert "steps: 30" in facts["lines"][0]
    course, kept = plot["views"][0]["series"]
    assert (course["x"], course["y"]) == ([0, 10, 20, 30], [0.25, 0.5, 0.125, None])
    assert (kept["x"], kept["y"], kept["alone"]) == ([20], [0.125], True)
    assert section(page, "by-layer")["blocks"][0]["form"] == "bars"


def test_a_sensitivity_that_was_printed_is_shown_too(folder, tmp_path):
    file = tmp_path / "sensitivity.json"
    file.write_text(json.dumps(sensitivity()))
    code, _, _ = tuckertree("report", folder, "--sensitivity", file, "--output", tmp_path / "page.html")
    assert code == 0
    page = read(tmp_path / "page.html").data
    assert section(page, "sensitivity")["blocks"][0]["views"][0]["series"][0]["y"] == pytest.approx(
        [0.1, 0.2]
    )
    file.write_text("{}")
    code, _, err = tuckertree(
        "report", folder, "--sensitivity", file, "--output", tmp_path / "page.html", "--overwrite"
    )
    assert (code, err.count("\n")) == (1, 1)


def test_no_name_puts_an_element_or_a_script_into_the_page(tmp_path):
    hostile = saved(tmp_path / "hostile", commands=[HOSTILE], images=HOSTILE)
    rename(hostile, read_plan(hostile).layers[0].name, HOSTILE)
    page = read(write_report(hostile))
    plain = read(write_report(saved(tmp_path / "plain")))
    assert page.tags == plain.tags
    assert "img" not in page.tags
    assert [how for how, _ in page.scripts] == [how for how, _ in plain.scripts]
    assert section(page.data, "network")["blocks"][0]["names"][0] == HOSTILE
    assert not [each for each in page.attributes if each[1].startswith("on")]


def test_the_browser_is_told_to_run_two_known_scripts_and_to_load_nothing(folder, tmp_path):
    page = read(write_report(folder, tmp_path / "page.html"))
    rules = policy(page)
    assert rules["default-src"] == ["'none'"]
    known = {
        f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
        for how, text in page.scripts
        if how.get("id") != "data"
    }
    assert set(rules["script-src"]) == known
    assert len(known) == 2
    assert not [
        each
        for each in page.attributes
        if each[1] in ("src", "srcset") or (each[1] == "href" and not each[2].startswith("#"))
    ]


def test_our_part_of_the_page_is_small(folder, tmp_path):
    from plotly.offline import get_plotlyjs

    written = write_report(folder, tmp_path / "page.html")
    assert written.stat().st_size - len(get_plotlyjs().encode()) < 100_000


def test_a_page_stands_beside_its_folder_which_can_still_be_loaded_and_replaced(tmp_path):
    result = saved(tmp_path / "small")
    code, out, _ = tuckertree("report", result)
    assert code == 0
    assert str(default_output(result)) in out
    assert default_output(result) == tmp_path / "small-report.html"
    assert read_config(result).plan.layers
    assert {entry.name for entry in result.iterdir()} == {"config.json", "model.safetensors", "report.json"}


@pytest.mark.parametrize("what", ["nothing", "empty", "text.txt", "broken.onnx"])
def test_what_is_no_result_is_one_line(tmp_path, what):
    path = tmp_path / what
    if what == "empty":
        path.mkdir()
    elif what != "nothing":
        path.write_text("text")
    code, out, err = tuckertree("report", path)
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert [entry.name for entry in tmp_path.iterdir() if entry.suffix == ".html"] == []


@pytest.mark.parametrize(
    "change",
    [
        {"errors": {"0": "much"}},
        {"accuracy": {"limit": 1}},
        {"survey": {"layers": {"0": {"bonds": [], "stages": [], "code": "x"}}}},
        {"survey": {"layers": {"0": {"bonds": [{"ranks": [], "values": [], "tails": []}], "stages": []}}}},
        {"survey": {"layers": {"0": {"bonds": [], "stages": [], "offered": {"ranks": [], "squared": []}}}}},
        {"survey": {"layers": {"0": {"bonds": [], "stages": [], "offered": {"ranks": [8], "squared": [2]}}}}},
        {"distances": {"fitted": float("nan")}},
        {"commands": "x"},
        {"tuning": {**tuning(), "course": [[1, "near"]]}},
        {"tuning": {**tuning(), "course": [[1, 0.5, 0.5]]}},
        {"tuning": {**tuning(), "course": [[0.5, 0.5]]}},
        {"int8": {"bytes": 1, "images": 1, "layers": {"layers": 1, "losses": {"a": "much"}}}},
        {"precisions": [{"precision": "int8", "measured": 0.5}]},
        {"original": {"parameters": 10**400, "macs": 1}},
    ],
)
def test_a_report_of_other_types_is_refused_in_one_line(tmp_path, change):
    code, _, err = tuckertree("report", saved(tmp_path / "odd", **change))
    assert (code, err.count("\n")) == (1, 1)
    assert "report.json" in err


def test_script_style_and_page_are_in_the_package():
    inside = files("tuckertree.tools.html_report")
    names = {entry.name for entry in (*inside.iterdir(), *inside.joinpath("script").iterdir())}
    assert {"page.js", "plots.js", "page.css", "page.html"} <= names
