"""The folder of a comparison: a file for each cell, the settings of all, and the page."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tuckertree._base.atomic import Kind, check_free, claimed, write_atomically
from tuckertree._base.checkpoints import differences
from tuckertree._base.errors import TuckertreeError, UsageError, argument
from tuckertree._base.reading import read_as, read_json
from tuckertree.measure import environment
from tuckertree.tools.comparison.cells import ORIGINAL, Cell, Outcome, cells_of

FORMAT = 1
MARKER, PAGE, CELLS = "comparison.json", "comparison.md", "cells"
KIND = Kind(
    MARKER,
    {"format": int, "settings": dict, "methods": list, "budgets": list},
    frozenset({MARKER, PAGE, CELLS}),
)
_HASHED = ("network", "preprocessing")


class ResultsFolder:
    """Outcomes kept in a folder, each as soon as it is there.

    Made by :func:`open_results`.
    """

    def __init__(
        self, path: Path, settings: Mapping[str, object], methods: Sequence[str], budgets: Sequence[str]
    ) -> None:
        self.path, self.settings, self.methods, self.budgets = path, settings, methods, budgets

    @property
    def cells(self) -> list[Cell]:
        """All cells that were ever asked for here, the original first."""
        return [ORIGINAL, *cells_of(self.methods, self.budgets)]

    def keep(self, cell: Cell, outcome: Outcome) -> None:
        """Write the outcome of a cell."""
        write_atomically(self.path / CELLS / cell.file, json.dumps(asdict(outcome), indent=1) + "\n")

    def outcome(self, cell: Cell) -> Outcome | None:
        """The outcome of a cell, if there is one.

        Raises
        ------
        TuckertreeError
            If the file is not one of ours.
        """
        path = self.path / CELLS / cell.file
        if not path.exists():
            return None
        try:
            return read_as(Outcome, read_json(path))
        except UsageError as error:
            raise TuckertreeError(f"{path}: {error}; delete it, and the cell is made again") from error

    def outcomes(self) -> list[Outcome]:
        """All that there are, the original first, in the order of the cells."""
        found = (self.outcome(cell) for cell in self.cells)
        return [outcome for outcome in found if outcome is not None]

    def write_marker(self) -> None:
        """Write what was asked for."""
        content = {
            "format": FORMAT,
            "settings": dict(self.settings),
            "methods": list(self.methods),
            "budgets": list(self.budgets),
            "environment": environment(),
        }
        write_atomically(self.path / MARKER, json.dumps(content, indent=1) + "\n")

    def write_page(self, text: str) -> None:
        """Write the page for people."""
        write_atomically(self.path / PAGE, text)


@contextmanager
def open_results(
    path: Path,
    settings: Mapping[str, object],
    methods: Sequence[str],
    budgets: Sequence[str],
    *,
    overwrite: bool = False,
) -> Iterator[ResultsFolder]:
    """Give the folder of a comparison to go on with; other programs are kept out of it meanwhile.

    Methods and budgets that are asked for now come beside those of before.

    Raises
    ------
    UsageError
        If its cells were made with other settings.
    TuckertreeError
        If it holds other files, or another program is at work in it.
    """
    if not path.is_dir():
        check_free(path, kind=KIND, overwrite=True)
    with claimed(path):
        _sweep(path)
        check_free(path, kind=KIND, overwrite=True)
        if overwrite:
            _clear(path)
        marker = path / MARKER
        known: dict[str, Any] = {"methods": [], "budgets": []}
        if marker.exists():
            known = read_json(marker)
            if not all(isinstance(name, str) for key in ("methods", "budgets") for name in known[key]):
                raise TuckertreeError(
                    f"{marker} is damaged: methods and budgets are names; begin anew by {argument('overwrite')}"
                )
            _refuse_another(path, known["settings"], json.loads(json.dumps(settings)))
        results = ResultsFolder(
            path,
            settings,
            list(dict.fromkeys([*known["methods"], *methods])),
            list(dict.fromkeys([*known["budgets"], *budgets])),
        )
        results.write_marker()
        yield results


def _sweep(path: Path) -> None:
    """Remove what a process that was killed had half-written."""
    if KIND.marks(path):
        for left in [*path.glob(f".{MARKER}.*"), *path.glob(f".{PAGE}.*")]:
            shutil.rmtree(left, ignore_errors=True)


def _clear(path: Path) -> None:
    shutil.rmtree(path / CELLS, ignore_errors=True)
    for name in (MARKER, PAGE):
        (path / name).unlink(missing_ok=True)


def _refuse_another(path: Path, there: Mapping[str, object], wanted: Mapping[str, object]) -> None:
    if differing := differences(there, wanted, _HASHED):
        raise UsageError(
            f"{path} holds another comparison ({'; '.join(differing)}); choose another output or pass "
            f"{argument('overwrite')}"
        )
