"""What every command has in common on a terminal: quiet, drawn, completed."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tools.cli.test_cli import tuckertree

COMMANDS = (
    "bench", "compare", "compress", "demo", "evaluate", "export", "finetune", "inspect", "push", "report", "reproduce", "train", "tune",
)  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_can_be_quiet_and_print_json(command, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    code, out, _ = tuckertree(command, "--help")
    assert code == 0
    assert "--quiet" in out
    assert "--json" in out


def test_quiet_prints_nothing_but_warnings_and_json():
    assert tuckertree("inspect", "demo", "--quiet") == (0, "", "")
    code, out, _ = tuckertree("inspect", "demo", "-q", "--json")
    assert code == 0
    assert json.loads(out)["layers"]
    assert "conv1" in tuckertree("inspect", "demo")[1]  # and the next is not quiet
    code, out, err = tuckertree("inspect", "none", "--quiet")
    assert (code, out) == (2, "")
    assert err.startswith("error:")


def test_spectra_are_drawn(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    code, out, _ = tuckertree("inspect", "demo", "--spectra")
    assert code == 0
    lines = [line for line in out.splitlines() if line.startswith(" layer3.1.conv2 ")]
    assert [line.split()[1] for line in lines] == ["R1", "R13", "R3"]
    assert all("█" in line and len(line) <= 80 for line in lines)
    code, out, _ = tuckertree("inspect", "demo", "--spectra", "--json")
    found = json.loads(out)["layer3.1.conv2"]
    assert [len(values) for values in found.values()] == [64, 192, 64]
    assert all(values == sorted(values, reverse=True) for values in found.values())
    code, _, err = tuckertree("inspect", "demo", "--spectra", "--curve")
    assert (code, "give one of them" in err) == (2, True)


def test_errors_at_the_ranks_on_offer_are_drawn_of_what_compress_made(tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "110")
    small, layer = tmp_path / "small", "layer3.1.conv2"
    options = ("--macs", "0.96", "--methods", "depthwise", "--include", layer, "--output", small)
    assert tuckertree("compress", "demo", *options)[0] == 0
    code, out, _ = tuckertree("inspect", small, "--spectra", "--json")
    found = json.loads(out)[layer]
    assert code == 0
    assert set(found) == {"0", "1", "2", "depthwise"}
    ranks, chosen = found["depthwise"]["ranks"], found["depthwise"]["chosen"]
    assert len(ranks) == len(found["depthwise"]["squared"]) > 1
    code, out, _ = tuckertree("inspect", small, "--spectra")
    (line,) = (line for line in out.splitlines() if " depthwise " in line)
    assert line.split()[0] == layer
    assert f" {chosen} of {ranks[0]}..{ranks[-1]} " in line
    assert "depthwise: the chosen rank" in out


def test_the_curve_has_bars(monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    code, out, _ = tuckertree("inspect", "demo", "--curve")
    bars = [line.count("█") for line in out.splitlines()]
    assert code == 0
    assert max(bars) == 24
    assert [count for count in bars if count] == sorted(count for count in bars if count)


def test_the_shell_completes_commands():
    found = subprocess.run(
        [Path(sys.executable).with_name("tuckertree")],
        env={"COMP_WORDS": "tuckertree com", "COMP_CWORD": "1", "_TUCKERTREE_COMPLETE": "complete_bash"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.split() == ["compare", "compress"]
