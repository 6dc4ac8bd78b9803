"""Tuning on the command line."""

import json

import pytest
import torch

import tuckertree as tt
from tests.tools.cli.test_cli import tuckertree
from tuckertree.calibration import CalibrationWarning
from tuckertree.calibration.tuning.run import TuningRun


def test_a_folder_is_tuned_by_the_command_and_saved(tmp_path):
    folder, out = tmp_path / "net", tmp_path / "tuned"
    tt.compress(tt.build("demo"), torch.zeros(1, 3, 32, 32), tt.Energy(0.9)).save(folder)
    arguments = (
        "tune",
        folder,
        "--images",
        "demo",
        "--limit",
        40,
        "--batch-size",
        8,
        "--steps",
        12,
        "--teacher",
        "demo",
    )
    code, shown, err = tuckertree(*arguments, "-o", out)
    assert (code, f"saved       {out}" in shown, "tuned       12 steps" in shown) == (0, True, True), err
    report = json.loads((out / "report.json").read_text())
    assert report["tuning"]["after"] < report["tuning"]["before"]
    assert tt.Plan.from_json(json.loads((out / "config.json").read_text())["plan"]).compressed
    code, shown, _ = tuckertree(*arguments, "-o", tmp_path / "again", "--json")
    assert json.loads(shown)["tuning"]["after"] == report["tuning"]["after"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--minutes", "1", "--steps", "3"], "either minutes or steps"),
        (["--minutes", "0"], "more than no time"),
        (["--images", "nosuch"], "nosuch"),
        (["--weights", "nosuch.pt"], "nosuch.pt"),
        (["-o", "{folder}"], "exists"),
    ],
)
def test_the_command_refuses_what_is_amiss_in_one_line(arguments, message, tmp_path):
    folder = tmp_path / "net"
    tt.compress(tt.build("demo"), torch.zeros(1, 3, 32, 32), tt.Energy(0.7)).save(folder)
    given = ["--images", "demo", "--limit", "8", "--teacher", "demo", "-o", tmp_path / "out"]
    code, _, err = tuckertree("tune", folder, *given, *(text.format(folder=folder) for text in arguments))
    assert code in (1, 2)
    assert (err.startswith("error: "), err.count("\n"), message in err) == (True, 1, True), err
    assert not (tmp_path / "out").exists()


def test_an_interrupted_command_saves_the_best_state_and_ends_as_interrupted(tmp_path, monkeypatch):
    folder, out = tmp_path / "net", tmp_path / "out"
    tt.compress(tt.build("demo"), torch.zeros(1, 3, 32, 32), tt.Energy(0.9)).save(folder)
    look = TuningRun._look

    def interrupted(run, done, steps):
        look(run, done, steps)
        if done == 11:
            raise KeyboardInterrupt

    monkeypatch.setattr(TuningRun, "_look", interrupted)
    command = ("tune", folder, "--images", "demo", "--limit", 40, "--batch-size", 8, "--steps", 12)
    command += ("--teacher", "demo", "-o", out)
    with pytest.warns(CalibrationWarning, match="interrupted after 11 steps"):
        code, _, err = tuckertree(*command)
    assert (code, f"the best state so far is saved in {out}" in err) == (130, True)
    report = json.loads((out / "report.json").read_text())["tuning"]
    assert (report["interrupted"], report["after"] < report["before"]) == (True, True)
    monkeypatch.undo()
    code, _, err = tuckertree(*command)
    assert (code, "out.partial holds an unfinished run" in err or "exists already" in err) == (1, True), err
    code, _, err = tuckertree(*command, "--resume")
    assert code == 0, err
    report = json.loads((out / "report.json").read_text())["tuning"]
    assert (report["interrupted"], report["steps"]) == (False, 12)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["net", "out"]


@pytest.mark.filterwarnings("ignore::tuckertree.calibration.CalibrationWarning")
def test_compress_takes_a_length_of_tuning_on_the_command_line(tmp_path):
    arguments = ("compress", "demo", "--params", "2x", "--calibration", "demo", "--calibration-images", 32)
    code, shown, err = tuckertree(*arguments, "--tune", 4, "-o", tmp_path / "out")
    assert (code, "tuned       " in shown) == (0, True), err
    code, _, err = tuckertree("compress", "demo", "--params", "2x", "--tune", 4, "-o", tmp_path / "no")
    assert (code, "--tune belongs to --calibration" in err) == (2, True)
