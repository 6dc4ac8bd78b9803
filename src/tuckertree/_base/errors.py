"""The errors this package raises on purpose.

Each message is one line that says what is wrong, where, and what to do about it. The command line prints
it and exits with the class's ``exit_code``; a library user catches :class:`TuckertreeError`.
"""

from collections.abc import Iterator
from contextlib import contextmanager


def printable(text: str) -> str:
    """Text with ``?`` for all that a terminal would take for an instruction: names from a file may hold it."""
    return "".join(sign if sign.isprintable() else "?" for sign in text)


def first_line(error: BaseException) -> str:
    """First line of a message that says something; the error's type where none does."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def one_line(error: BaseException) -> str:
    """A whole message in one line; the error's type where it is empty."""
    return " ".join(str(error).split()) or type(error).__name__


_on_command_line = False


@contextmanager
def command_line() -> Iterator[None]:
    """While the block lasts, messages name arguments as one types them in a terminal."""
    global _on_command_line
    before, _on_command_line = _on_command_line, True
    try:
        yield
    finally:
        _on_command_line = before


def argument(name: str, value: object = True) -> str:
    """How an argument is given: ``overwrite=True`` in Python, ``--overwrite`` on the command line."""
    if not _on_command_line:
        return f"{name}={value!r}"
    return f"--{name.replace('_', '-')}" + ("" if value is True else f" {value}")


def advice(*, typed: str, called: str) -> str:
    """What to do about an error: ``typed`` on the command line, ``called`` in Python."""
    return typed if _on_command_line else called


class TuckertreeError(Exception):
    """Something given to tuckertree cannot be used: a file, a model, a weight, an input.

    Examples
    --------
    >>> import tuckertree as tt
    >>> try:
    ...     tt.load("no/such/folder")
    ... except tt.TuckertreeError as error:
    ...     print(error)
    no/such/folder is not a folder saved by tuckertree: there is no such folder
    """

    exit_code = 1


class UsageError(TuckertreeError, ValueError):
    """An argument has a value it cannot have, such as an energy of 1.5.

    Examples
    --------
    >>> import tuckertree as tt
    >>> tt.Energy(1.5)
    Traceback (most recent call last):
    tuckertree.UsageError: energy must be in (0, 1], got 1.5
    """

    exit_code = 2


class UnreachableTargetError(TuckertreeError):
    """What was asked for cannot be done to this model; nothing was written.

    Examples
    --------
    >>> import torch, tuckertree as tt
    >>> try:
    ...     tt.compress(torch.nn.Conv2d(8, 8, 3), torch.zeros(1, 8, 16, 16), tt.Budget(params=0.01))
    ... except tt.UnreachableTargetError as error:
    ...     print(str(error).split("; ")[-1])
    the nearest within reach is params 0.0514
    """

    exit_code = 3


class DivergedError(TuckertreeError):
    """Training diverged in its first epoch, so that there are no weights to keep and none to go on from."""


for _offered in (TuckertreeError, UsageError, UnreachableTargetError):
    _offered.__module__ = "tuckertree"  # where users catch them
