"""Results of several runs of a benchmark in one file."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from tuckertree.measure import environment

Row = dict[str, Any]


def merged(path: Path, key: str, rows: Sequence[Row], kind: Sequence[str]) -> list[Row]:
    """Rows of a JSON file under ``key``, and new ones, each in the place of an older one of the same kind.

    Parameters
    ----------
    kind
        Keys that rows of one kind have the same values of, or lack alike.
    """
    found = json.loads(path.read_text(encoding="utf-8"))[key] if path.exists() else []
    return list({tuple(row.get(name) for name in kind): row for row in [*found, *rows]}.values())


def write_report(folder: Path, name: str, report: Row, page: str) -> None:
    """Write a report as ``name.json`` and as the page ``name.md``."""
    (folder / f"{name}.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    (folder / f"{name}.md").write_text(page, encoding="utf-8")


def write_on_device(
    name: str,
    results: Sequence[Row],
    kind: Sequence[str],
    page: Callable[[Row], str],
    options: argparse.Namespace,
) -> None:
    """Add results of the device to those in the folder, each in the place of an older one of the same kind."""
    device = torch.cuda.get_device_name() if options.device != "cpu" else "CPU"
    rows = [{"device": device, **row} for row in results]
    report = {
        "seed": options.seed,
        "rounds": options.rounds,
        "environment": environment(),
        "results": merged(options.output / f"{name}.json", "results", rows, kind),
    }
    options.output.mkdir(parents=True, exist_ok=True)
    write_report(options.output, name, report, page(report))
