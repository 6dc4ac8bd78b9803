"""Work spread over processes of our own: one for each piece, with one thread."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import connection, get_context, parent_process, resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from threading import Thread
from typing import TYPE_CHECKING, TypeVar

import torch

from tuckertree._base.errors import TuckertreeError, first_line

if TYPE_CHECKING:
    from multiprocessing.context import ForkServerContext, SpawnContext

Item = TypeVar("Item")
Result = TypeVar("Result")
_ENDS_WITHIN = 5.0
"""Seconds that a process has to end in when it is told to."""
_STDOUT, _STDERR = 1, 2


@dataclass(frozen=True)
class Broken:
    """What is given in place of a result that there is none of."""

    reason: str


def in_processes(
    work: Callable[[Item], Result], items: Sequence[Item], *, jobs: int, copies: bool = False
) -> Iterator[tuple[Item, Result | Broken]]:
    """Do work in processes, ``jobs`` at a time, each with one thread, and give results as they come.

    All processes end with the iterator, however it ends, and with this process.

    Parameters
    ----------
    work
        A function of a module, or a partial one, which can be sent to another process; so can what it returns.
    items
        What it is called with, each in a process of its own: what one of them does to its process, others do not see.
    copies
        Begin processes, where the system can, as copies of one that has imported torch and nothing else; that one stays until
        this process ends, so it is for programs of our own.
    """
    context = _context(copies=copies)
    waiting, running = list(items), dict[Connection, tuple[Item, BaseProcess]]()
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                item = waiting.pop(0)
                ours, theirs = context.Pipe(duplex=False)
                process: BaseProcess = context.Process(target=_work, args=(theirs, work, item), daemon=True)
                with _undisturbed():
                    process.start()
                theirs.close()
                running[ours] = item, process
            for done in connection.wait(list(running)):
                assert isinstance(done, Connection)
                item, ended = running[done]
                result = _received(done, ended)
                del running[done]
                yield item, result
    finally:
        _end([process for _, process in running.values()])


def _context(*, copies: bool) -> SpawnContext | ForkServerContext:
    if sys.platform == "win32" or not copies:
        return get_context("spawn")
    context = get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context


def _end(processes: Sequence[BaseProcess]) -> None:
    for process in processes:
        process.terminate()
    for process in processes:
        process.join(_ENDS_WITHIN)
        if process.is_alive():
            process.kill()


def _received(pipe: Connection, process: BaseProcess) -> Result | Broken:
    try:
        result: Result | Broken = pipe.recv()
    except (EOFError, OSError):
        process.join()
        code = process.exitcode or 0
        how = f"killed by signal {-code}, as where memory is short" if code < 0 else f"exit code {code}"
        if code == 1:
            how += "; a script calls this below `if __name__ == '__main__':`"
        return Broken(f"its process ended without a result ({how})")
    finally:
        pipe.close()
    process.join()
    return result


def _work(pipe: Connection, work: Callable[[Item], Result], item: Item) -> None:
    """What a process does."""
    Thread(target=_end_with_parent, daemon=True).start()
    os.dup2(_STDERR, _STDOUT)  # results alone are printed there, by the first process
    torch.set_num_threads(1)
    result: Result | Broken
    try:
        result = work(item)
    except TuckertreeError as error:
        result = Broken(str(error))
    except Exception as error:
        result = Broken(f"{type(error).__name__}: {first_line(error)}")
    pipe.send(result)
    pipe.close()


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
    os._exit(1)


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Start a process that Ctrl-C does not reach, which the terminal sends to all, and that imports nothing from here."""
    safe = os.environ.get("PYTHONSAFEPATH")
    os.environ["PYTHONSAFEPATH"] = "1"
    before = None
    if sys.platform != "win32":
        resource_tracker.ensure_running()  # which a first process would start, and let Ctrl-C through
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        if safe is None:
            del os.environ["PYTHONSAFEPATH"]
        else:
            os.environ["PYTHONSAFEPATH"] = safe
        if sys.platform != "win32" and before is not None:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
