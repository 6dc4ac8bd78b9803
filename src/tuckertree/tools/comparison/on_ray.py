"""Work spread over a Ray cluster, as :func:`~tuckertree.tools.comparison.processes.in_processes` spreads it over processes."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import torch

from tuckertree._base.errors import TuckertreeError, first_line, printable
from tuckertree._base.extras import require_extra
from tuckertree.tools.comparison.processes import Broken

Item = TypeVar("Item")
Result = TypeVar("Result")
_TRIES = 3
"""A machine or process may be lost so often in the middle of one piece of work."""


def on_ray(
    work: Callable[[Item], Result], items: Sequence[Item], *, jobs: int, address: str | None = None
) -> Iterator[tuple[Item, Result | Broken]]:
    """Do work as Ray tasks of one thread each, ``jobs`` at a time, and give results as they come.

    A task whose process or machine is lost is done again elsewhere. tuckertree, and the files that the work opens, must be
    on every machine, at the same paths.

    Parameters
    ----------
    work
        A function of a module, or a partial one; what it is called with and returns can be sent to other processes.
    address
        Of a cluster that runs, ``auto`` for the one on this machine; by default one of ``jobs`` workers is started here, and
        ended with the iterator.

    Raises
    ------
    TuckertreeError
        If Ray is not installed, or there is no cluster at the address.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent anywhere
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    ray = require_extra("ray", extra="ray")
    own = not ray.is_initialized()
    if own:
        settings = {"num_cpus": jobs, "include_dashboard": False} if address is None else {"address": address}
        try:
            _knock(address)
            ray.init(**settings, log_to_driver=False, logging_level="error")
        except (OSError, RuntimeError, ValueError) as error:
            where = "could not be started" if address is None else f"is not at {address}"
            raise TuckertreeError(f"a Ray cluster {where}: {first_line(error)}") from error
    task = ray.remote(num_cpus=1, max_retries=_TRIES - 1)(_done)
    waiting, running = list(items), dict[object, Item]()
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                item = waiting.pop(0)
                running[task.remote(work, item)] = item
            (ended, *_), _ = ray.wait(list(running), num_returns=1)
            try:
                result: Result | Broken = ray.get(ended)
            except ray.exceptions.RayTaskError as error:  # outside of _done, which raises nothing
                cause = str(error).strip().splitlines()[-1]  # of a traceback
                result = Broken(f"it cannot be done as a Ray task: {printable(cause.strip())}")
            except ray.exceptions.RayError as error:
                result = Broken(f"its process was lost {_TRIES} times: {printable(first_line(error))}")
            yield running.pop(ended), result
    finally:
        for each in running:
            ray.cancel(each, force=True)
        if own:
            ray.shutdown()


def _knock(address: str | None) -> None:
    """Fail at once where nothing listens: Ray itself waits for minutes."""
    host, colon, port = (address or "").removeprefix("ray://").rpartition(":")
    if colon and port.isdecimal():
        socket.create_connection((host, int(port)), timeout=10).close()


def _done(work: Callable[[Item], Result], item: Item) -> Result | Broken:
    """What a task does."""
    torch.set_num_threads(1)
    try:
        return work(item)
    except TuckertreeError as error:
        return Broken(str(error))
    except Exception as error:
        return Broken(f"{type(error).__name__}: {first_line(error)}")
