"""Whom a name comes from: what the user typed may lead to an import, what a file says never does.

The import is a method of :class:`TrustedName`, and nothing else in this package imports by name. The names that
files hold are of a type that cannot become one: neither mypy nor the interpreter lets it through.
"""

from __future__ import annotations

import importlib
import re
import sys
import warnings
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from tuckertree._base.errors import UsageError

_FACTORY = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")


class TrustedName(str):
    """A name that the user typed; the parser of the command line makes them, and no other code of ours.

    Raises
    ------
    TypeError
        If it is made of anything but text, of an :class:`UntrustedName` above all.
    """

    __slots__ = ()

    def __new__(cls, text: str) -> Self:
        """Take what was typed as it is."""
        if not isinstance(text, str):
            raise TypeError(f"a {type(text).__name__} is not what the user typed")
        return super().__new__(cls, text)

    @property
    def is_factory(self) -> bool:
        """Whether it has the form ``package.module:function``."""
        return _FACTORY.fullmatch(self) is not None

    def call(self) -> object:
        """Import the module of ``package.module:function`` and call the function.

        Returns
        -------
        object
            What the function returns.

        Raises
        ------
        Exception
            Whatever the import or the function raises.
        """
        module, _, function = self.partition(":")
        sys.path.insert(0, "")  # as `python -m` does: the user's own module stands where they are
        try:
            return getattr(importlib.import_module(module), function)()
        finally:
            with suppress(ValueError):  # the module may have taken it out itself
                sys.path.remove("")


def warn_of_namesake(name: str) -> None:
    """Say that a name is taken for what is known by it, where a file or folder of the working folder has it too."""
    if Path(name).exists():
        warnings.warn(f"{name} is what is known by that name; for what lies here say ./{name}", stacklevel=3)


def refuse_name_of_images(source: object) -> None:
    """Refuse a name where images are to be given, and say what opens it.

    Raises
    ------
    UsageError
        If it is one.
    """
    if isinstance(source, str | Path):
        raise UsageError(
            f"images are given as tensors here, not by the name {str(source)!r}; open_calibration and open_images of "
            "tuckertree.tools.data open what has a name"
        )


@dataclass(frozen=True)
class UntrustedName:
    """A name read from a file, which anybody may have written: looked up in lists, never imported or opened.

    Attributes
    ----------
    text
        What the file says.
    """

    text: str

    def __str__(self) -> str:
        return self.text
