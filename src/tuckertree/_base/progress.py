"""Progress on stderr, and work spread over the CPU's threads."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")
_EVERY = 20.0
"""Seconds between two lines in a log."""
ProgressCallback = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and how much there is. After a colon what is being done may
go on with how it stands."""


def no_progress(doing: str, done: int, total: int) -> None:
    """Say nothing."""


class _Quiet:
    """Whether nothing is said of progress unless it is asked for."""

    is_on = False


def be_quiet(quiet: bool = True) -> None:
    """Say nothing of progress from now on, unless it is asked for call by call."""
    _Quiet.is_on = quiet


def draws_bars() -> bool:
    """Whether progress is drawn unless one says otherwise: stderr is a terminal, and nobody asked for quiet."""
    return sys.stderr.isatty() and not _Quiet.is_on


@contextmanager
def progress_bar(show: bool | None = None, *, in_logs: bool = True) -> Iterator[ProgressCallback]:
    """Give a :data:`ProgressCallback` that shows progress on stderr.

    Parameters
    ----------
    show
        Draw a bar, or say nothing. By default a bar is drawn where stderr is a terminal; elsewhere a line is said now and
        then of what takes long.
    in_logs
        Whether such lines are wanted; not where the caller has its own.
    """
    on_terminal = sys.stderr.isatty()
    if show is False or (show is None and _Quiet.is_on):
        yield no_progress
        return
    if not (show or on_terminal):
        yield _Lines() if in_logs else no_progress
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        tasks: dict[str, object] = {}

        def tick(doing: str, done: int, total: int) -> None:
            task = doing.partition(":")[0]
            if task not in tasks:
                tasks[task] = bar.add_task(doing, total=total)
            bar.update(tasks[task], completed=done, description=doing)  # type: ignore[arg-type]

        yield tick


class _Lines:
    """A line now and then, with the time left, for a log."""

    def __init__(self) -> None:
        self._doing, self._before = "", 0
        self._start = self._said = time.monotonic()

    def __call__(self, doing: str, done: int, total: int) -> None:
        now, task = time.monotonic(), doing.partition(":")[0]
        if task != self._doing:
            self._doing, self._before, self._start = task, done, now
        if now - self._said < _EVERY or done <= self._before:
            return
        self._said = now
        left = (now - self._start) * (total - done) / (done - self._before)
        say(f"{doing}: {done} of {total}, about {duration(left)} left")


def duration(seconds: float) -> str:
    """A time in words that a person reads: ``40 s``, ``12 min``, ``1 h 5 min``."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


def say(text: str) -> None:
    """Print a line on stderr where it is no terminal, so that a log shows how far the work is."""
    if not (sys.stderr.isatty() or _Quiet.is_on):
        print(text, file=sys.stderr, flush=True)


def parallel_map(
    work: Callable[[Item], Result],
    items: Sequence[Item],
    *,
    doing: str = "",
    tick: ProgressCallback = no_progress,
    size: Callable[[Item], float] | None = None,
) -> list[Result]:
    """Map ``work`` over items, one CPU thread for each, and keep their order.

    Eigenproblems of a few hundred rows gain nothing from a second thread (they lose by it when the machine
    is busy), while layers are many and independent: so each worker computes with one thread, and there are
    as many workers as torch may use threads. The largest items, by ``size``, go first; one that is larger
    than a worker's fair share of all goes before them, alone, with every thread.
    """
    import torch  # here: what says nothing but its help need not wait for it

    threads = torch.get_num_threads()
    sizes = [size(item) if size else 0.0 for item in items]
    order = sorted(range(len(items)), key=lambda i: -sizes[i])
    alone = [i for i in order if sizes[i] * threads > sum(sizes)]
    results: dict[int, Result] = {}

    def keep(number: int, result: Result) -> None:
        results[number] = result
        tick(doing, len(results), len(items))

    for i in alone:
        keep(i, work(items[i]))
    if torch.cuda.is_initialized():
        # Its linear algebra is loaded at the first call, and fails where several threads make that at once.
        torch.linalg.eigh(torch.eye(2, device="cuda"))
    pool = ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))
    try:
        futures = {pool.submit(work, items[i]): i for i in order[len(alone) :]}
        for future in as_completed(futures):
            keep(futures[future], future.result())
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)
    return [results[i] for i in range(len(items))]
