"""A comparison as a table: for the terminal, and as a page of Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tuckertree.io.report import FittingTable, short
from tuckertree.tools.comparison.cells import Outcome

_HEAD = """# Ways to compress {model}, compared

All networks were made from the same weights and, but for `:weights`, fitted to the same images, with the same seed, each in
a process of one thread. Budgets are of {by}. {measured} `name:weights` is the method as it is published: weights alone,
no images.

"""
DISTANCE = "relative distance of the outputs from the original's"
_MEASURED = {
    "top-1": "Top-1 is in percent on {images} images, with Wilson's 95 % interval.",
    "distance": f"What is compared is the {DISTANCE} on {{images}} images, without labels.",
}
_OTHERS = "What is compared is {name} on {images} images; more is better."
_SEPARATOR = "|"


def comparison_table(outcomes: Sequence[Outcome]) -> FittingTable:
    """Table of outcomes, the original network first."""
    heads, rows = _rows(outcomes)
    return FittingTable(heads, rows, ("parameters", "seconds", "tuning s"), note="remark")


def comparison_page(settings: Mapping[str, object], outcomes: Sequence[Outcome]) -> str:
    """A comparison as Markdown.

    Parameters
    ----------
    settings
        What was the same for all.
    outcomes
        The original network first.
    """
    name = _name_of(outcomes[0])
    measured = _MEASURED.get(name, _OTHERS)
    text = _HEAD.format(
        model=settings["model"],
        by="MACs" if settings["by"] == "macs" else "parameters",
        measured=measured.format(name=name, images=settings["data images"]),
    )
    heads, rows = _rows(outcomes)
    lines = [_line([head.lstrip(">") for head in heads])]
    lines.append(_line(["---:" if head.startswith(">") else "---" for head in heads]))
    lines += map(_line, rows)
    fixed = [f"- {name}: {value}" for name, value in settings.items() if value is not None]
    return text + "\n".join([*lines, "", "## Settings", "", *fixed]) + "\n"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace(_SEPARATOR, '/') for cell in cells)} |"


def _rows(outcomes: Sequence[Outcome]) -> tuple[list[str], list[list[str]]]:
    """Heads and rows, of the columns that have something in them."""
    original = outcomes[0]
    heads = ["method", ">budget", ">MACs", ">parameters", f">{_name_of(original)}", ">tuned"]
    heads += [">ms", ">times faster", ">seconds", ">tuning s", "remark"]
    rows = [_row(each, original) for each in outcomes]
    used = [n for n in range(len(heads)) if any(row[n] for row in rows)]
    return [heads[n] for n in used], [[row[n] for n in used] for row in rows]


def _row(outcome: Outcome, original: Outcome) -> list[str]:
    if outcome.failed:
        return [outcome.method, outcome.budget, *[""] * 8, outcome.failed]
    latency = outcome.latency
    return [
        outcome.method,
        outcome.budget,
        _less(outcome.macs, original.macs),
        _less(outcome.parameters, original.parameters),
        str(outcome.score or ""),
        str(outcome.tuned or ""),
        f"{1000 * latency.seconds:.3g}" if latency else "",
        f"{1 / latency.ratio:.2f}" if latency else "",
        f"{outcome.seconds:.1f}",
        "" if outcome.tuning is None else f"{outcome.tuning:.1f}",
        "; ".join(outcome.warnings),
    ]


def _name_of(original: Outcome) -> str:
    """What networks are compared by."""
    return original.score.name if original.score else "top-1"


def _less(own: int, whole: int) -> str:
    return f"{short(own)} ({whole / max(own, 1):.2f}x)"
