"""Two processes do what one does."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("lightning")


def run(folder, devices, *, resume=False):
    words = [str(folder), str(devices), "resume" if resume else "start"]
    return subprocess.run(
        [sys.executable, "-m", "tests.training.two_processes", *words],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
        timeout=120,
    )


def test_two_processes_give_the_weights_of_one_and_survive_a_death(tmp_path):
    # Starting processes takes most of the time; so one test for all that needs them.
    assert run(tmp_path, 1).returncode == 0
    (tmp_path / "omen").touch()
    died = run(tmp_path, 2)
    assert died.returncode == 1
    assert "TuckertreeError: a process of the run ended" in died.stderr
    assert (tmp_path / "2/epoch.ckpt").is_file()
    (tmp_path / "omen").unlink()
    done = run(tmp_path, 2, resume=True)
    assert done.returncode == 0, done.stderr
    (one, history), (two, same) = (torch.load(tmp_path / f"{n}.pt", weights_only=True) for n in (1, 2))
    for name in one:
        torch.testing.assert_close(two[name], one[name])
    assert [row["validation_top1"] for row in history] == [row["validation_top1"] for row in same]
