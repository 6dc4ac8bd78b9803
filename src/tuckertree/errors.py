"""The errors this package raises on purpose.

Each message is one line that says what is wrong, where, and what to do about it. The command line prints
it and exits with the class's ``exit_code``; a library user catches :class:`TuckertreeError`.
"""


def printable(text: str) -> str:
    """Text with ``?`` for all that a terminal would take for an instruction: names from a file may hold it."""
    return "".join(sign if sign.isprintable() else "?" for sign in text)


class TuckertreeError(Exception):
    """Something given to tuckertree cannot be used: a file, a model, a weight, an input."""

    exit_code = 1


class UsageError(TuckertreeError, ValueError):
    """An argument has a value it cannot have, such as an energy of 1.5."""

    exit_code = 2


class UnreachableTargetError(TuckertreeError):
    """What was asked for cannot be done to this model; nothing was written."""

    exit_code = 3


class DivergedError(TuckertreeError):
    """Training diverged in its first epoch, so that there are no weights to keep and none to go on from."""
