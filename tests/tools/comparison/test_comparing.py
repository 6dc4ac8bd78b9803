"""`tuckertree compare` as a user runs it, and the folder that it leaves."""

import json
import sys

import pytest

import tuckertree as tt
from tests.tools.cli.test_bad_input import refused
from tests.tools.cli.test_cli import tuckertree
from tests.tools.comparison.cases import tiny_task
from tuckertree._base.names import TrustedName
from tuckertree.tools.comparison import (
    Latency,
    NamedTask,
    Outcome,
    Settings,
    cells_of,
    compare,
    comparison_page,
    measure_cell,
)
from tuckertree.tools.data import batches, open_images
from tuckertree.tools.models import resolve

NETWORK = "tests.tools.comparison.cases:tiny"
SIZE = ("--input-size", "3,32,32")
IMAGES = (*SIZE, "--data", "demo", "--data-images", 64)
FITTED = ("--calibration", "demo", "--calibration-images", 32)
MADE = (*IMAGES, *FITTED, "--methods", "svd:weights,svd", "--budgets", "1.5x,1000x")


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """A comparison in which one cell cannot be."""
    folder = tmp_path_factory.mktemp("compared") / "out"
    code, out, err = tuckertree("compare", NETWORK, *MADE, "-o", folder)
    assert code == 0, err
    return folder, out, err


def test_a_table_a_page_and_a_file_for_each_cell(compared):
    folder, out, err = compared
    assert {path.name for path in (folder / "cells").iterdir()} == {
        "dense.json",
        "svd-1.5x.json",
        "svd.weights-1.5x.json",
        "svd-1000x.json",
        "svd.weights-1000x.json",
    }
    found = {path.stem: json.loads(path.read_text()) for path in (folder / "cells").iterdir()}
    dense, fitted, plain = found["dense"], found["svd-1.5x"], found["svd.weights-1.5x"]
    assert dense["macs"] >= 1.5 * max(fitted["macs"], plain["macs"])
    assert plain["score"]["low"] < plain["score"]["top1"] < plain["score"]["high"]
    page = (folder / "comparison.md").read_text()
    for text in (out, page):
        for name in ("dense", "svd", "svd:weights", "1000x"):
            assert name in text
    assert "measured    top-1 in percent on 64 of demo (test)" in out
    assert "images      32 of demo (train), to fit to" in out
    assert "| svd:weights | 1.5x |" in page
    assert err.count(" of 5: ") == 5
    assert "about 0 s left" in err


def test_a_cell_that_cannot_be_shows_its_reason_beside_the_others(compared):
    folder, out, _ = compared
    found = json.loads((folder / "cells" / "svd-1000x.json").read_text())
    assert found["unreachable"]
    assert "the nearest within reach" in found["failed"]
    assert found["score"] is None
    for text in (out, (folder / "comparison.md").read_text()):
        assert found["failed"].split(";")[-1].strip() in " ".join(text.split())


def test_two_jobs_give_what_one_gives_and_a_comparison_is_extended(compared, tmp_path):
    one, two = compared[0], tmp_path / "two"
    more = (*IMAGES, *FITTED, "--methods", "svd:weights", "--budgets", "1.5x")
    assert tuckertree("compare", NETWORK, *more, "-o", two)[0] == 0
    before = (two / "cells" / "svd.weights-1.5x.json").stat().st_mtime_ns
    code, out, err = tuckertree("compare", NETWORK, *MADE, "-o", two, "--jobs", 2, "--json")
    assert (code, err.count(" of 3: ")) == (0, 3)
    assert (two / "cells" / "svd.weights-1.5x.json").stat().st_mtime_ns == before
    ours, theirs = (
        {path.name: json.loads(path.read_text()) | {"seconds": 0} for path in (each / "cells").iterdir()}
        for each in (one, two)
    )
    assert ours == theirs
    assert [x["method"] for x in json.loads(out)["outcomes"]] == ["dense", *["svd:weights", "svd"] * 2]


def test_the_same_again_makes_nothing(compared):
    folder, out, _ = compared
    files = {path: path.stat().st_mtime_ns for path in (folder / "cells").iterdir()}
    code, again, err = tuckertree("compare", NETWORK, *MADE, "-o", folder)
    assert (code, again, err) == (0, out, "")
    assert {path: path.stat().st_mtime_ns for path in (folder / "cells").iterdir()} == files


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("--seed", 1), "seed 0 there, 1 here"),
        (("--by", "params"), "by macs there, params here"),
        (("--data-images", 63), "data images 64 there, 63 here"),
        (("--calibration-images", 31), "calibration images 32 there, 31 here"),
        (("--tune", 5), "tune None there, 5 here"),
        (("--mean", "0.5"), "another preprocessing"),
    ],
)
def test_a_folder_of_another_comparison_is_refused(compared, change, message):
    folder = compared[0]
    marker = (folder / "comparison.json").read_text()
    code, err = refused("compare", NETWORK, *MADE, "-o", folder, *change)
    assert (code, message in err, "--overwrite" in err) == (2, True, True), err
    assert (folder / "comparison.json").read_text() == marker


def test_another_network_is_another_comparison(compared):
    code, err = refused("compare", "demo", *MADE, "-o", compared[0])
    assert (code, "model tests" in err, "another network" in err) == (2, True, True), err


def test_a_cell_file_that_is_damaged_is_named(compared, tmp_path):
    folder = compared[0]
    path = folder / "cells" / "svd-1.5x.json"
    whole = path.read_text()
    try:
        path.write_text("{}")
        code, err = refused("compare", NETWORK, *MADE, "-o", folder)
        assert (code, f"{path}: the key 'method' is missing" in err) == (1, True), err
    finally:
        path.write_text(whole)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([*IMAGES, "--methods", "ht2,zz"], 2, "unknown method 'zz'; known: ht2, tucker2"),
        ([*IMAGES, "--methods", "ht2"], 2, "the method ht2 is given unlabelled images"),
        ([*IMAGES, "--methods", "svd:weights", "--budgets", "none"], 2, "macs"),
        ([*IMAGES, "--methods", "svd:weights", "--tune", "5"], 2, "--tune belongs to --calibration"),
        ([*IMAGES, "--methods", "svd:weights", "--threads", "2"], 2, "--threads belongs to --runtime"),
        ([*IMAGES, *FITTED, "--tune", "soon"], 2, "tuning takes a time"),
        ([*IMAGES, *FITTED, "--by", "size"], 2, "budgets are of macs or params"),
        ([*IMAGES, *FITTED, "--runtime", "none"], 2, "unknown runtime 'none'"),
        ([*IMAGES, *FITTED, "--runtime", "torch", "--jobs", "2"], 2, "times are measured one at a time"),
        (
            [*IMAGES, *FITTED, "--engine", "ray", "--ray-address", "auto", "--runtime", "torch"],
            2,
            "--ray-address cannot go with --runtime",
        ),
        ([*SIZE, "--data", "nowhere", *FITTED], 1, "no such file or folder"),
    ],
)
def test_what_cannot_be_compared_is_refused_in_one_line(arguments, code, message, tmp_path):
    found, err = refused("compare", NETWORK, *arguments, "-o", tmp_path / "out")
    assert (found, message in err) == (code, True), err
    assert not any(tmp_path.iterdir())


def test_other_files_are_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    for more in ((), ("--overwrite",)):
        code, err = refused("compare", NETWORK, *IMAGES, "--methods", "svd:weights", "-o", tmp_path, *more)
        assert (code, "holds other files (mine.txt)" in err) == (1, True), err
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_budget_that_no_method_reaches_ends_with_3(tmp_path):
    options = (*IMAGES, "--methods", "svd:weights", "--budgets", "1000x")
    code, out, err = tuckertree("compare", NETWORK, *options, "-o", tmp_path / "out")
    assert code == 3
    assert "error: no method gave a network; " in err.splitlines()[-1]
    assert "dense" in out


def test_images_without_labels_are_compared_by_distance(tmp_path):
    from PIL import Image

    images = open_images("demo", resolve("demo").preprocessing, limit=24)
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(len(images)):
        Image.fromarray(images.pixels(number).permute(1, 2, 0).numpy()).save(folder / f"{number}.png")
    options = (
        *SIZE,
        "--data",
        folder,
        "--calibration",
        folder,
        "--methods",
        "svd:weights",
        "--budgets",
        "1.5x",
    )
    code, out, err = tuckertree("compare", NETWORK, *options, "-o", tmp_path / "out")
    assert code == 0, err
    assert "relative distance of the outputs from the original's on 12 of" in out
    assert "images      12 of" in out  # one half is fitted to, the other measured on
    found = json.loads((tmp_path / "out" / "cells" / "svd.weights-1.5x.json").read_text())
    assert 0 < found["score"]["distance"] < 2
    assert "without labels" in (tmp_path / "out" / "comparison.md").read_text()


def in_this_process(work, cells):
    """A mapper: anything that calls a function for all cells."""
    return ((cell, work(cell)) for cell in cells)


def test_networks_that_were_fitted_are_tuned_where_that_is_asked_for(tmp_path):
    found = compare(
        tiny_task,
        ["svd", "svd:weights"],
        ["2x"],
        tmp_path / "out",
        Settings(tune="2"),
        mapper=in_this_process,
    )
    dense, fitted, plain = found.outcomes
    assert fitted.tuned is not None
    assert fitted.tuning > 0
    assert dense.tuned is plain.tuned is dense.tuning is plain.tuning is None
    assert "tuned" in (tmp_path / "out" / "comparison.md").read_text()


def test_a_cell_is_what_compress_makes_of_the_same():
    task = tiny_task()
    (fold,) = task.folds
    (cell,) = cells_of(["ht2"], ["2x"])
    found = measure_cell(task, cell, Settings())
    budget = tt.Budget(macs=0.5)
    own = tt.compress(task.model, task.example, budget, methods=("ht2",), calibration=fold.calibration)
    assert found.score.top1 == tt.evaluate(own.model, batches(fold.score.images, 128)).top1
    assert (found.parameters, found.macs) == (own.plan.parameters[1], own.plan.macs[1])


def test_a_package_that_is_missing_breaks_its_cells_until_it_is_there(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch_pruning", None)
    (cell,) = cells_of(["prune"], ["2x"])
    found = measure_cell(tiny_task(), cell, Settings())
    assert "pip install '.[rivals]'" in found.failed
    assert not found.is_final


def test_times_stand_beside_the_original():
    outcomes = [
        Outcome("dense", "1x", macs=10, latency=Latency(2e-3, 1.0, 1.0, 1.0)),
        Outcome("svd", "2x", macs=5, latency=Latency(1e-3, 0.5, 0.4, 0.6)),
        Outcome("cp", "2x", failed="a | b"),
    ]
    settings = {"model": "net", "by": "macs", "data images": 3}
    page = comparison_page(settings, outcomes)
    assert "| svd | 2x | 5 (2.00x) | 0 (0.00x) | 1 | 2.00 |" in page
    assert "a / b |" in page


def test_an_interruption_keeps_what_is_done_and_the_same_call_goes_on(tmp_path):
    task, output = tiny_task, tmp_path / "out"

    def interrupted(work, cells):
        yield cells[0], work(cells[0])
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt, match="1 cells of 2 are kept"):
        compare(task, ["svd:weights"], ["2x"], output, mapper=interrupted)
    asked = []

    def noted(work, cells):
        asked.extend(map(str, cells))
        return in_this_process(work, cells)

    found = compare(task, ["svd:weights"], ["2x"], output, mapper=noted)
    assert asked == ["svd:weights 2x"]
    assert [outcome.method for outcome in found.outcomes] == ["dense", "svd:weights"]
    compare(task, ["svd:weights"], ["2x"], output, Settings(seed=1), mapper=noted, overwrite=True)
    assert asked[1:] == ["dense", "svd:weights 2x"]


def test_what_a_killed_process_half_wrote_does_not_stand_in_the_way(tmp_path):
    task, output = tiny_task, tmp_path / "out"
    compare(task, ["svd:weights"], ["2x"], output, mapper=in_this_process)
    (output / ".comparison.md.abc").mkdir()
    compare(task, ["svd:weights"], ["2x"], output, mapper=in_this_process)
    assert {path.name for path in output.iterdir()} == {"cells", "comparison.json", "comparison.md"}


def test_images_named_in_two_ways_are_divided_all_the_same(tmp_path, monkeypatch):
    image = pytest.importorskip("PIL.Image")
    for number in range(6):
        (tmp_path / "imgs" / str(number % 2)).mkdir(parents=True, exist_ok=True)
        image.new("RGB", (32, 32), (40 * number, 0, 0)).save(tmp_path / f"imgs/{number % 2}/{number}.png")
    monkeypatch.chdir(tmp_path)
    (fold,) = NamedTask(TrustedName("demo"), "imgs", calibration=str(tmp_path / "imgs"))().folds
    assert (fold.count, len(fold.calibration)) == (3, 3)
    shown = [{bytes(each[i][0].numpy()) for i in range(3)} for each in (fold.score.images, fold.calibration)]
    assert not shown[0] & shown[1]
