"""The pages of networks are what the results make."""

import runpy
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_the_pages_are_what_the_results_make(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "scripts")
    made = runpy.run_path(str(ROOT / "scripts/network_pages.py"))["pages"]()
    there = {path.name: path.read_text(encoding="utf-8") for path in (ROOT / "docs/networks").glob("*.md")}
    assert there == made, "run python scripts/network_pages.py"
