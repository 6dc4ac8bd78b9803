"""`compress --max-drop`, `--agreement` and `inspect --sensitivity`, as a user runs them."""

import json

import pytest
from PIL import Image

import tuckertree as tt
from tests.network.onnx.test_cli import image_network
from tests.tools.cli.test_bad_input import refused
from tests.tools.cli.test_cli import tuckertree
from tuckertree._base.names import TrustedName
from tuckertree.io import read_report
from tuckertree.tools.cli.accuracy_images import open_accuracy_images
from tuckertree.tools.data import open_images
from tuckertree.tools.models import resolve
from tuckertree.tools.opening import open_model


@pytest.fixture
def photographs(tmp_path):
    """A folder of images without splits, a folder for each class."""
    images = open_images("demo", resolve("demo").preprocessing, limit=60)
    for number in range(len(images)):
        folder = tmp_path / "photographs" / f"{images.label(number)}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(images.pixels(number).permute(1, 2, 0).numpy()).save(folder / f"{number}.png")
    return tmp_path / "photographs"


QUICK = ("--include", "layer3.2.*", "--calibration-images", 24)


def test_the_cheapest_network_that_keeps_the_accuracy_is_saved_with_the_search(tmp_path):
    folder = tmp_path / "out"
    options = ("--max-drop", 10, "--data", "demo", "--data-images", 80, *QUICK)
    code, out, err = tuckertree("compress", "demo", *options, "-o", folder)
    assert code == 0, err
    assert "images      24 of demo (train)" in out
    assert "data        80 of demo (test), to search with and to prove" in out
    assert "on 40 images that took no part in the search" in out
    report = json.loads((folder / "report.json").read_text())["accuracy"]
    assert report["held"]
    assert report["loss"]["lost"] <= 10
    assert out.count("\nstep ") == len(report["steps"]) > 1
    assert err.count("step ") >= len(report["steps"])  # a log shows how far it is
    code, out, _ = tuckertree("evaluate", folder, "--data", "demo", "--limit", 80, "--json")
    found = json.loads(out)
    low, high = found["top1_interval"]
    assert low < found["top1"] < high


@pytest.mark.filterwarnings("ignore:fitting does not bring")  # of noise there is nothing to learn
def test_one_folder_of_photographs_is_divided(photographs, tmp_path):
    options = ("--max-drop", 30, "--data", photographs, "--best-effort", "--json", *QUICK)
    code, out, err = tuckertree("compress", "demo", *options, "-o", tmp_path / "out")
    assert code == 0, err
    found = json.loads(out)["accuracy"]
    assert found["loss"]["images"] == found["steps"][0]["loss"]["images"] == 15


@pytest.mark.parametrize("calibration", [None, "", "/"])
def test_the_same_folder_under_another_name_is_divided_too(photographs, calibration):
    opened = open_model(TrustedName("demo"))
    named = None if calibration is None else f"{photographs}{calibration}"
    given = dict.fromkeys(("input_size", "limit", "mean", "std", "scale", "channels"))
    to_fit, labelled = open_accuracy_images("demo", opened, str(photographs), named, count=1024, **given)
    ours, theirs = [to_fit.pixels(i) for i in range(len(to_fit))], labelled.images
    assert len(to_fit) == len(labelled) == 30
    assert not any((theirs.pixels(i) == x).all() for i in range(len(theirs)) for x in ours)
    assert {to_fit.label(i) for i in range(30)} == {theirs.label(i) for i in range(30)}


def test_an_accuracy_that_cannot_be_kept_ends_with_3_and_writes_nothing(tmp_path):
    model, output = tmp_path / "m.onnx", tmp_path / "out.onnx"
    image_network(model, "NCHW")
    options = ("--agreement", 1, "--calibration", "demo", "--calibration-images", 48, "-o", output)
    code, err = refused_at_last("compress", model, *options)
    assert code == 3
    assert "an agreement of 1 cannot be kept by this network; the nearest that was tried: MACs 1." in err
    assert "by --best-effort" in err
    assert [*tmp_path.iterdir()] == [model]
    code, out, _ = tuckertree("compress", model, *options, "--best-effort", "--json")
    found = json.loads(out)
    assert code == 0
    assert not found["accuracy"]["held"]
    assert any("was not kept" in line for line in found["warnings"])
    assert output.exists()


def refused_at_last(*arguments):
    """Code and last line of a command that fails after work."""
    code, _, err = tuckertree(*arguments)
    last = err.strip().splitlines()[-1]
    assert last.startswith("error: "), err
    return code, last


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--max-drop", "1"], "--max-drop needs labelled images: give --data"),
        (["--max-drop", "1", "--calibration", "demo"], "--max-drop needs labelled images: give --data"),
        (["--agreement", "0.9"], "a budget of agreement needs unlabelled images: give calibration"),
        (["--macs", "0.5", "--data", "demo"], "--data belongs to --max-drop or --agreement"),
        (["--macs", "0.5", "--data-images", "5"], "--data-images belongs to --data"),
        (["--macs", "0.5", "--cheapest", "macs"], "--cheapest belongs to --max-drop or --agreement"),
        (["--max-drop", "1", "--data", "demo", "--macs", "2x"], "a budget of accuracy stands alone"),
        (["--max-drop", "1", "--data", "demo", "--agreement", ".9"], "a budget of accuracy stands alone"),
        (
            ["--max-drop", "1", "--data", "demo", "--energy", ".9"],
            "give one of --energy, --error, or a budget",
        ),
        (["--max-drop", "-1", "--data", "demo"], "max_drop is in points of top-1"),
        (["--max-drop", "x", "--data", "demo"], "Invalid value for '--max-drop'"),
        (["--agreement", "99", "--calibration", "demo"], "agreement is a share in (0, 1]"),
        (
            ["--max-drop", "1", "--data", "demo", "--cheapest", "size"],
            "cheapest can be macs, params, latency",
        ),
        (["--max-drop", "1", "--data", "demo", "--threads", "2"], "--threads belongs to --latency"),
        (["--max-drop", "1", "--data", "demo", "--data-images", "1"], "Invalid value for '--data-images'"),
    ],
    ids=lambda x: " ".join(x) if isinstance(x, list) else "",
)
def test_what_cannot_be_asked_for_is_refused_in_one_line(arguments, message, tmp_path):
    code, err = refused("compress", "demo", *arguments, "-o", tmp_path / "out")
    assert (code, message in err) == (2, True), err
    assert not any(tmp_path.iterdir())


def test_a_folder_that_is_not_there_is_one_line(tmp_path):
    options = ("--max-drop", 1, "--data", tmp_path / "none", "-o", tmp_path / "out")
    code, err = refused("compress", "demo", *options)
    assert (code, "no such file or folder" in err) == (1, True)


def test_by_layer_is_a_table_and_json(tmp_path):
    options = ("--macs", "0.7", "--calibration", "demo", "--calibration-images", 32, "--by-layer")
    code, out, _ = tuckertree("compress", "demo", *options, "-o", tmp_path / "out", "--json")
    found = json.loads(out)["by_layer"]
    assert (code, found["images"]) == (0, 5)
    assert sum(each["share"] for each in found["rises"]) == pytest.approx(1)
    assert read_report(tmp_path / "out")["by_layer"] == found
    code, out, _ = tuckertree("compress", "demo", *options, "-o", tmp_path / "other")
    assert (code, "up to them" in out) == (0, True)
    code, err = refused("compress", "demo", "--macs", "0.7", "--by-layer", "-o", tmp_path / "none")
    assert (code, "--by-layer belongs to --calibration" in err) == (2, True), err


def test_what_cannot_be_told_by_layer_is_a_warning_and_the_network_is_saved(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise tt.TuckertreeError("no output is of floating-point numbers")

    monkeypatch.setattr(tt, "distance_by_layer", refuse, raising=False)
    options = ("--macs", "0.7", "--calibration", "demo", "--calibration-images", 8, "--by-layer")
    code, out, err = tuckertree("compress", "demo", *options, "-o", tmp_path / "out")
    assert (code, "saved" in out) == (0, True)
    assert "not by layer: no output is of floating-point numbers" in err
    assert (tmp_path / "out").exists()


def test_sensitivity_is_a_table_and_json():
    options = ("--sensitivity", "--calibration", "demo", "--calibration-images", 8)
    code, out, _ = tuckertree("inspect", "demo", *options, "--json")
    assert code == 0
    found = json.loads(out)
    assert (found["factor"], found["images"], len(found["layers"])) == (2, 8, 20)
    assert all(row["macs"][1] * 2 <= row["macs"][0] for row in found["layers"])
    assert all(row["distance"] > 0 and 0 <= row["agreement"] <= 1 for row in found["layers"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--sensitivity"], "--sensitivity looks at what a network makes of images: give --calibration"),
        (
            ["--sensitivity", "--curve", "--calibration", "demo"],
            "--curve, --sensitivity and --spectra are tables",
        ),
        (["--sensitivity", "--by", "macs", "--calibration", "demo"], "--by belongs to --curve"),
    ],
)
def test_sensitivity_needs_images_and_stands_alone(arguments, message):
    code, err = refused("inspect", "demo", *arguments)
    assert (code, message in err) == (2, True), err
