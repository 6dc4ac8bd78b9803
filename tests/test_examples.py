"""The examples run."""

import re
import runpy
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("*.py"))
EXTRAS = ("onnxruntime", "torchvision")
"""Packages of the extras that examples may need."""


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
@pytest.mark.filterwarnings("default")  # few images and random weights, as the warnings rightly say
def test_an_example_runs(path, capsys, tmp_path, monkeypatch):
    text = path.read_text(encoding="utf-8")
    for package in EXTRAS:
        if re.search(rf"\b{package}\b", text):
            pytest.importorskip(package)
    monkeypatch.setenv("TUCKERTREE_CACHE", str(tmp_path))
    runpy.run_path(str(path), run_name="__main__")
    assert capsys.readouterr().out


def test_each_example_is_listed():
    listed = (EXAMPLES[0].parent / "README.md").read_text(encoding="utf-8")
    assert sorted(re.findall(r"^- `(\w+\.py)`", listed, re.MULTILINE)) == [path.name for path in EXAMPLES]
