"""Make docs/results/reproduction.md from the recipes and the results of their runs.

    python scripts/reproduction_page.py

To add a result, copy the result.json of a run to docs/results/reproduction/NAME.json first.
"""

from pathlib import Path

from tuckertree.tools.recipes import reproduction_page

ROOT = Path(__file__).parents[1]


def main() -> None:
    """Write the page."""
    results = ROOT / "docs/results"
    page = reproduction_page(ROOT / "recipes", results / "reproduction")
    (results / "reproduction.md").write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
