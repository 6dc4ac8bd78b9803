"""All cells of a comparison: those that are missing are made, each kept as soon as it is there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import perf_counter

import torch

from tuckertree._base.errors import TuckertreeError, UsageError
from tuckertree._base.progress import duration, progress_bar, say
from tuckertree.tools.comparison.cell import Settings, described, measure_cell
from tuckertree.tools.comparison.cells import ORIGINAL, Cell, Outcome, cells_of
from tuckertree.tools.comparison.folder import ResultsFolder, open_results
from tuckertree.tools.comparison.page import DISTANCE, comparison_page
from tuckertree.tools.comparison.processes import Broken, in_processes
from tuckertree.tools.comparison.task import Task

Mapper = Callable[[Callable[[Cell], Outcome], Sequence[Cell]], Iterator[tuple[Cell, Outcome | Broken]]]
"""Calls a function for each of some cells, anywhere, and gives what it returned as it comes; or why it did not return."""


@dataclass(frozen=True)
class Comparison:
    """What was compared, and what came of it.

    Attributes
    ----------
    settings
        What was the same for all, as JSON data.
    outcomes
        Of the original network first, then of the cells.
    path
        The folder with all of it.
    """

    settings: Mapping[str, object]
    outcomes: Sequence[Outcome]
    path: Path

    @property
    def compressed(self) -> Sequence[Outcome]:
        """All others."""
        return self.outcomes[1:]

    def lines(self) -> list[str]:
        """What there is to say beside the table."""
        known = self.settings
        score = self.outcomes[0].score
        name = score.name if score else ""
        what = {"top-1": "top-1 in percent", "distance": DISTANCE}.get(name, name)
        interval = ", with Wilson's 95 % interval" if name == "top-1" else ""
        fitted = (
            f"{known['calibration images']} of {known['calibration']}" if known["calibration"] else "none"
        )
        return [
            f"measured    {what} on {known['data images']} of {known['data']}{interval}",
            f"images      {fitted}, to fit to",
            f"saved       {self.path}",
        ]


def compare(
    task: Callable[[], Task],
    methods: Sequence[str],
    budgets: Sequence[str],
    output: str | Path,
    settings: Settings | None = None,
    *,
    jobs: int = 1,
    overwrite: bool = False,
    mapper: Mapper | None = None,
) -> Comparison:
    """Compress a network by several methods at several budgets, and measure them all alike.

    Each cell, a method at a budget, is made in a process of its own with one thread, so results do not depend on how many
    are made at a time. What a folder holds already is not made again, but for cells that failed for another reason than
    that the method cannot reach the budget.

    Parameters
    ----------
    task
        Opens network and images; a function of a module, or a partial one, since each process calls it.
    methods
        Names of methods of :func:`tuckertree.compress`, ``default`` for all that it chooses among by itself, ``prune`` for
        structured pruning by torch-pruning; each also without images, as ``ht2:weights``.
    budgets
        Shares or factors, such as ``0.4`` or ``2.5x``.
    output
        The folder to write to.
    settings
        What else is the same for all.
    jobs
        So many processes at a time; one where times are measured.
    overwrite
        Whether a comparison that the folder holds is dropped.
    mapper
        What calls a function for all cells; by default processes on this machine.

    Raises
    ------
    UsageError
        If a method is unknown, a budget no share, a method lacks its images, or the folder holds another comparison.
    TuckertreeError
        If network or images cannot be opened, the original network cannot be measured on them, or the folder cannot be
        written.

    Examples
    --------
    >>> import tempfile
    >>> from functools import partial
    >>> from tuckertree.tools.comparison import compare, demo_task
    >>> demo = partial(demo_task, images=50)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     found = compare(demo, ["svd:weights"], ["1.2x"], f"{folder}/compared")
    >>> [outcome.method for outcome in found.outcomes], found.outcomes[1].score.images
    (['dense', 'svd:weights'], 50)
    """
    settings = settings or Settings()
    wanted = cells_of(methods, budgets, settings.by)
    if jobs < 1 or (jobs > 1 and settings.runtime is not None):
        raise UsageError("times are measured one at a time: one job" if jobs > 1 else "jobs are one or more")
    opened = _opened(task, settings)
    unfit = next((cell.method for cell in wanted if cell.method and cell.method.fitted), None)
    if not opened.is_fitted and unfit is not None:
        raise UsageError(
            f"the method {unfit} is given unlabelled images: give calibration too, or name {unfit}:weights"
        )
    shared = described(opened, settings)
    names = [str(cell.method) for cell in wanted]
    shares = [cell.budget for cell in wanted]
    work = partial(_cell_of, task, shared, settings)
    mapper = mapper or partial(in_processes, jobs=jobs)
    with open_results(Path(output), shared, names, shares, overwrite=overwrite) as results:
        _fill(results, [ORIGINAL, *wanted], work, mapper)
        found = Comparison(shared, results.outcomes(), results.path)
        results.write_page(comparison_page(shared, found.outcomes))
    return found


def _opened(task: Callable[[], Task], settings: Settings) -> Task:
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(settings.seed)  # of weights that are random
        return task()


def _cell_of(
    task: Callable[[], Task], shared: Mapping[str, object], settings: Settings, cell: Cell
) -> Outcome:
    """Make a cell from the start, in whatever process."""
    opened = _opened(task, settings)
    if described(opened, settings) != shared:
        raise TuckertreeError(
            "the network or its images are others each time they are opened; give weights in a file"
        )
    return measure_cell(opened, cell, settings)


def _fill(
    results: ResultsFolder,
    wanted: Sequence[Cell],
    work: Callable[[Cell], Outcome],
    mapper: Mapper,
) -> None:
    """Make the cells that there are no final outcomes of."""
    there = {cell: results.outcome(cell) for cell in wanted}
    missing = [cell for cell, known in there.items() if known is None or not known.is_final]
    start, done = perf_counter(), 0
    cells = mapper(work, missing)
    try:
        with progress_bar(in_logs=False) as tick:
            tick("cells", 0, len(missing))
            for cell, found in cells:
                outcome = Outcome.failure(cell, found.reason) if isinstance(found, Broken) else found
                if cell.method is None and outcome.failed:
                    raise TuckertreeError(f"the original network cannot be measured: {outcome.failed}")
                results.keep(cell, outcome)
                if results.outcome(ORIGINAL) is not None:
                    results.write_page(comparison_page(results.settings, results.outcomes()))
                done += 1
                left = (perf_counter() - start) / done * (len(missing) - done)
                tick(f"cells: {cell} made", done, len(missing))
                say(f"{done} of {len(missing)}: {_said(cell, outcome)}; about {duration(left)} left")
    except KeyboardInterrupt as error:
        raise KeyboardInterrupt(
            f"interrupted; {done} cells of {len(missing)} are kept in {results.path}, and the same command makes the others"
        ) from error
    finally:
        close = getattr(cells, "close", None)
        if close is not None:
            close()


def _said(cell: Cell, outcome: Outcome) -> str:
    if outcome.failed or outcome.score is None:
        return f"{cell} failed: {outcome.failed}"
    score = outcome.tuned or outcome.score
    return f"{cell}: {score.name} {score}"
