"""The page of comparisons, and the benchmark that measures them."""

import importlib
import json
import runpy
from functools import partial
from pathlib import Path

import pytest

from tests.tools.comparison.test_comparing import in_this_process

ROOT = Path(__file__).parents[1]
PAGE = runpy.run_path(str(ROOT / "scripts/comparison_page.py"))
RESNET20 = json.loads((ROOT / "docs/results/comparison/resnet20.json").read_text(encoding="utf-8"))
KNOWN = {
    **RESNET20["settings"],
    "model": "VDSR",
    "data images": 5,
    "calibration images": 240,
    "folds": 2,
}


def outcome(method, budget, macs, *numbers, failed=""):
    score = {"images": 5, "top1": None, "low": None, "high": None, "distance": None}
    others = dict(zip(("dB x2", "dB x4"), numbers, strict=False))
    return {
        "method": method,
        "budget": budget,
        "macs": macs,
        "failed": failed,
        "score": {**score, "others": others} if numbers else None,
        "tuned": None,
        "latency": {"ratio": 0.5} if numbers else None,
    }


VDSR = {
    "settings": KNOWN,
    "outcomes": [
        outcome("dense", "1x", 100, 37.66, 31.46),
        outcome("default", "2x", 50, 37.0, 31.0),
        outcome("svd", "2x", 50, 36.0, 31.2),
        outcome("prune", "2x", 0, failed="no layers"),
    ],
}


def test_what_is_not_top1_is_named():
    text = PAGE["section"](VDSR)
    assert "Dense dB x2 37.66, dB x4 31.46 of 5 images; 240 unlabelled images in each of 2 folds;" in text
    assert "| MACs, fitted, dB x2 / dB x4 | default | svd | prune |" in text
    assert "| 2x | **37.00** / 31.00 | 36.00 / 31.20 | - |" in text
    assert "- `prune` at 2x: no layers" in text
    panel = PAGE["panel"](VDSR)
    assert panel.upwards == "dB x2"
    assert panel.lines["svd"] == [(2.0, 36.0)]


def test_a_network_that_is_scored_by_top1_is_as_it_was():
    page = (ROOT / "docs/results/comparison.md").read_text(encoding="utf-8")
    assert PAGE["section"](RESNET20) in page
    assert PAGE["panel"](RESNET20).upwards == "top-1, %"


@pytest.fixture
def benchmark(monkeypatch):
    """The benchmark, in this process, and what it was asked to make."""
    pytest.importorskip("PIL")
    pytest.importorskip("onnxruntime")
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    module, asked = importlib.import_module("comparison"), []

    def noted(work, cells):
        asked.extend(map(str, cells))
        return in_this_process(work, cells)

    monkeypatch.setattr(module, "compare", partial(module.compare, mapper=noted))
    return module, asked


def test_the_benchmark_goes_on_and_keeps_what_broke_apart(benchmark, tmp_path):
    module, asked = benchmark
    folders = ("--limit", "20", "--work", str(tmp_path / "work"), "--output", str(tmp_path / "results"))
    command = ("--methods", "svd:weights", "--budgets", "1.5x,1000x", *folders)
    assert module.main(command) == 0
    file = tmp_path / "results" / "comparison" / "resnet-20.json"
    found = json.loads(file.read_text(encoding="utf-8"))
    dense, small, beyond = found["outcomes"]
    assert dense["score"]["images"] == small["score"]["images"] == 20
    assert small["latency"]["ratio"] > 0
    assert beyond["failed"]
    assert PAGE["methods_in"](PAGE["by_method_and_budget"](found)) == ["svd:weights"]
    assert len(asked) == 3
    assert module.main(command) == 0
    assert len(asked) == 3
    assert json.loads(file.read_text(encoding="utf-8")) == found


def test_a_network_that_cannot_be_opened_does_not_end_the_others(benchmark, tmp_path, monkeypatch, capsys):
    module, _ = benchmark
    opened = []

    def broken(name, *_):
        opened.append(name)
        raise module.TuckertreeError(f"no {name}")

    monkeypatch.setattr(module, "task_of", broken)
    command = ("VDSR", "GoogLeNet", "--data", str(tmp_path), "--work", str(tmp_path / "work"))
    assert module.main(command) == 1
    assert opened == ["VDSR", "GoogLeNet"]
    assert capsys.readouterr().err == "VDSR: no VDSR\nGoogLeNet: no GoogLeNet\n"
