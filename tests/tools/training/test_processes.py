"""Two processes do what one does."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.tools.training.two_processes import trained

pytest.importorskip("lightning")


def run(folder, how):
    return subprocess.run(
        [sys.executable, "-m", "tests.tools.training.two_processes", str(folder), how],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[3],
        timeout=900,  # seconds; a machine may be very busy
    )


def test_two_processes_give_the_weights_of_one_and_survive_a_death(tmp_path):
    # Starting processes takes most of the time; so one test for all that needs them.
    (tmp_path / "omen").touch()
    died = run(tmp_path, "start")
    assert died.returncode == 1
    assert "error: a process of the run ended" in died.stderr
    assert (tmp_path / "2/epoch.ckpt").is_file()
    (tmp_path / "omen").unlink()
    done = run(tmp_path, "resume")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    two, same = torch.load(tmp_path / "trained.pt", weights_only=True)
    one, history = trained(tmp_path, 1)
    for name in one:
        torch.testing.assert_close(two[name], one[name])
    assert [row["validation_top1"] for row in history] == [row["validation_top1"] for row in same]
