"""The page of a comparison."""

from dataclasses import replace

import pytest

from tests.tools.cli.test_cli import tuckertree
from tests.tools.html_report.cases import comparison, outcomes, section, shown
from tuckertree.tools.comparison.cells import Score

pytest.importorskip("plotly")


def test_a_comparison_is_a_pareto_plot_and_a_table(tmp_path):
    page = shown(comparison(tmp_path / "compared", outcomes()))
    assert (
        page["verdict"]
        == "nearest to the original is svd at 2x: 2.0x fewer MACs, top-1 90.0 -> 89.0 \N{PLUS-MINUS SIGN} 5.0"
    )
    *points, front = section(page, "front")["blocks"][0]["views"][0]["series"]
    assert [one["name"] for one in points] == ["dense", "svd", "cp"]
    assert (front["x"], front["y"]) == ([2.0, 1.0], [89.0, 90.0])
    table = section(page, "table")["blocks"][0]
    assert [row[0] for row in table["rows"]] == ["dense", "svd", "cp", "ht2"]
    assert table["rows"][-1][-1] == "cannot reach it"
    assert page["warnings"] == ["cp 2x: doubtful"]


def test_a_comparison_by_distance_prefers_the_nearest(tmp_path):
    first, good, bad, _ = outcomes()
    by_distance = [
        replace(each, score=Score(9, distance=far))
        for each, far in zip((first, good, bad), (0.0, 0.1, 0.2), strict=True)
    ]
    page = shown(comparison(tmp_path / "compared", by_distance))
    assert page["verdict"].endswith("outputs 10.0% from the original's")
    front = section(page, "front")["blocks"][0]["views"][0]["series"][-1]
    assert front["y"] == [0.1, 0.0]


def test_a_comparison_without_results_is_one_line(tmp_path):
    code, _, err = tuckertree("report", comparison(tmp_path / "compared", []))
    assert (code, err.count("\n")) == (1, 1)
