"""Scripts of others that once failed, each run as it is: what they print has to be right.

They lie in the folder ``cases`` beside the data that ``TUCKERTREE_DATA`` names. What each is about is tested without
them where it belongs.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

DATA = os.environ.get("TUCKERTREE_DATA")
CASES = Path(DATA).absolute().parent / "cases" if DATA else Path("cases of others")
NUMBER = r"(\d+\.?\d*(?:e-?\d+)?|nan)"


class Run:
    """What a script printed and how it ended."""

    def __init__(self, path, folder):
        environment = {**os.environ, "TMPDIR": str(folder)}
        environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), environment["PATH"]])
        # Names of before the packages were moved.
        script = path.read_text(encoding="utf-8").replace(
            "from tuckertree.export import", "from tuckertree import"
        )
        done = subprocess.run(
            [sys.executable, "-c", script],
            capture_output=True,
            text=True,
            cwd=folder,
            env=environment,
            timeout=600,
        )
        self.code, self.out, self.folder, self.environment = done.returncode, done.stdout, folder, environment
        self.err = (done.stderr.strip().splitlines() or [""])[-1]

    @property
    def refused(self):
        """Whether it ended with one line of ours."""
        return bool(self.code and re.match(r"tuckertree\.\w+Error: \S", self.err))

    def number(self, before):
        """The number behind a text."""
        found = re.search(re.escape(before) + r"\s*" + NUMBER, self.out)
        assert found, (before, self.out, self.err)
        return float(found[1])

    def tool(self, *words):
        """Run the command itself."""
        return subprocess.run(
            ["tuckertree", *map(str, words)],
            capture_output=True,
            text=True,
            env=self.environment,
            timeout=600,
        )


def fine(run):
    assert run.code == 0, run.err


def equal_or_refused(run):
    if not run.refused:
        fine(run)
        assert run.number("outputs differ by") < 1e-3


def refused(run):
    assert run.refused, (run.out, run.err)


def shared_hook(run):
    equal_or_refused(run)
    assert not run.refused or "acts" in run.err.lower() or "hook" in run.err.lower(), run.err


def feature_extractor(run):
    fine(run)
    assert "training: False -> False" in run.out
    assert run.number("outputs differ by") < 1e-3
    assert run.number("two runs by") == 0


def inputs_changed_in_place(run):
    fine(run)
    low, high, *example = map(float, re.findall(r"-?\d+\.\d+(?:e-?\d+)?", run.out)[:4])
    assert 0 <= low < high < 1
    assert 0 <= example[0] < example[1] < 1
    assert run.number("with calibration") <= run.number(", without") + 1e-6


def every_line_well(run):
    fine(run)
    assert re.findall(r"^\d+ (.*)$", run.out, re.MULTILINE) == ["well"] * 6


def fused(run):
    assert "torch:" not in run.out, run.out
    assert run.code == 0 or "ultralytics" in run.err, run.err


def loaded_is_saved(run):
    fine(run)
    assert run.number("tt.load by") < 1e-2


def tied_stays_dense(run):
    loaded_is_saved(run)
    assert run.number("tt.load by") < 1e-5
    assert re.search(r"\('b', 'dense', '[^']+'\)", run.out), run.out


def two_lines_of_ours(run):
    fine(run)
    lines = run.out.strip().splitlines()
    assert all(line.startswith("True ") for line in lines), run.out  # what can be copied prints nothing


def untouched(run):
    fine(run)
    assert run.number("its weight moved by") == 0


def sizes_by_name(run):
    fine(run)
    path = next(run.folder.rglob("f01.onnx"))
    sizes = ["--input-size", "left:3,32,32", "--input-size", "right:3,32,32"]
    for words in (["inspect", path], ["compress", path, "--macs", "0.6", "-o", path.with_name("s.onnx")]):
        done = run.tool(*words, *sizes)
        assert done.returncode == 0, done.stderr
    assert "--input-size" in run.out  # the first try says what to give


def batches_ok(run):
    fine(run)
    assert run.out.split() == ["1", "ok", "2", "ok", "4", "ok"]


def not_folded_either(run):
    fine(run)
    ends = re.findall(r"^(not folded|folded) (\d)", run.out, re.MULTILINE)
    assert ends == [("folded", "0")] * 2 + [("not folded", "0")] * 2, run.out


def inlined(run):
    fine(run)
    assert re.findall(r"^(\d) ", run.out, re.MULTILINE)[:1] == ["0"], run.out
    assert "no convolution" not in run.out
    smaller = next(run.folder.rglob("f04s.onnx"), None)
    assert smaller is not None, run.out


def ended_well(run):
    fine(run)
    assert run.out.startswith("0 "), run.out


def said_random(run):
    ended_well(run)
    assert "random" in run.out


def inputs_stay(run):
    if "FileNotFoundError" in run.err:  # its only layer stays dense, so nothing is written
        done = run.tool(
            "compress", next(run.folder.rglob("f10.onnx")), "--macs", "0.6", "-o", run.folder / "s.onnx"
        )
        assert done.returncode == 3, done.stderr
        assert "input" in done.stderr
        return
    fine(run)
    assert "['x', 'w'] -> ['x', 'w']" in run.out, run.out


def silent(run):
    fine(run)
    assert not run.out.strip(), run.out


RIGHT = {
    "torch/01": shared_hook,
    "torch/03": feature_extractor,
    "torch/05": equal_or_refused,
    "torch/06": inputs_changed_in_place,
    "torch/07": every_line_well,
    "torch/08": fine,
    "torch/09": fine,
    "torch/10": fused,
    "torch/11": fine,
    "torch/14": fine,
    "torch/15": loaded_is_saved,
    "torch/16": fine,
    "torch/18": two_lines_of_ours,
    "torch/19": fine,
    "torch/20": untouched,
    "torch/21": tied_stays_dense,
    "torch/23": refused,
    "onnx/01": sizes_by_name,
    "onnx/02": batches_ok,
    "onnx/03": not_folded_either,
    "onnx/04": inlined,
    "onnx/06": ended_well,
    "onnx/08": said_random,
    "onnx/10": inputs_stay,
    "onnx/12": silent,
}


@pytest.mark.parametrize("case", RIGHT)
def test_case(case, tmp_path, record_property):
    path = CASES / f"{case}.py"
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    run = Run(path, tmp_path)
    if missing := re.search(
        r"package (\w+), needed here, is not installed|No module named '(?:torchao|onnx\w*)'|Module onnx is not installed",
        run.err,
    ):
        pytest.skip(missing[0])
    record_property("case", case)
    record_property("said", " ".join((run.out.strip().splitlines() or [run.err])[-1].split())[:100])
    RIGHT[case](run)


def test_every_script_is_checked():
    there = {str(path.relative_to(CASES).with_suffix("")) for path in CASES.glob("*/[0-9]*.py")}
    assert there <= set(RIGHT)
