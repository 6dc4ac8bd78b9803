"""The figures of the mathematics are what our code draws."""

import re
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NUMBER = re.compile(r"-?\d+\.?\d*")
MADE = runpy.run_path(str(ROOT / "scripts/figures.py"))


@pytest.mark.parametrize("name", ["chain", "spectra", "errors"])  # the curve takes half a minute
def test_a_figure_is_what_the_code_draws(name):
    """To a pixel: processors round singular values in their own ways."""
    drawn, there = MADE[name](), (ROOT / f"docs/figures/{name}.svg").read_text(encoding="utf-8")
    assert NUMBER.sub("", drawn) == NUMBER.sub("", there), "run python scripts/figures.py"
    ours, theirs = (list(map(float, NUMBER.findall(text))) for text in (drawn, there))
    assert ours == pytest.approx(theirs, abs=1.0)
