"""Folders and files that appear whole or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tuckertree.errors import TuckertreeError


def check_free(path: Path, *, marker: str, overwrite: bool) -> None:
    """Refuse a target that may not be replaced, before any work is done for it.

    Parameters
    ----------
    marker
        File by which a folder is known to be one of ours; no other folder is ever replaced.

    Raises
    ------
    TuckertreeError
        If the path exists and may not be replaced.
    """
    if not path.exists() and not path.is_symlink():
        return
    if not path.is_dir() or path.is_symlink():
        raise TuckertreeError(f"{path} exists and is not a folder; choose another output")
    if not any(path.iterdir()):
        return
    if not (path / marker).is_file():
        raise TuckertreeError(f"{path} exists and holds other files; choose another output")
    if not overwrite:
        raise TuckertreeError(f"{path} exists already; choose another output or pass --overwrite")


@contextmanager
def _workshop(path: Path) -> Iterator[Path]:
    """Give a folder beside ``path`` for as long as the block lasts; what the disk says becomes one line."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        workshop = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    except OSError as error:
        raise TuckertreeError(f"cannot write {path}: {error.strerror or error}") from error
    try:
        yield workshop
    except OSError as error:
        raise TuckertreeError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(workshop, ignore_errors=True)


@contextmanager
def atomic_folder(path: Path, *, marker: str, overwrite: bool) -> Iterator[Path]:
    """Give an empty folder to write in, which becomes ``path`` when the block ends without an error.

    Whatever goes wrong inside, a full disk or Ctrl-C too, leaves ``path`` as it was and nothing beside it.

    Raises
    ------
    TuckertreeError
        If ``path`` may not be replaced, or cannot be written.
    """
    check_free(path, marker=marker, overwrite=overwrite)
    with _workshop(path) as workshop:
        new, old = workshop / "new", workshop / "old"
        new.mkdir()
        yield new
        if path.exists():
            path.rename(old)
        try:
            new.rename(path)
        except BaseException:
            if old.exists():
                old.rename(path)
            raise


@contextmanager
def atomic_files(path: Path, *, overwrite: bool) -> Iterator[Path]:
    """Give a path of the same name in a folder beside ``path``, to write to.

    When the block ends without an error, everything in that folder takes its place beside ``path``, ``path``
    itself last. Otherwise nothing is changed and nothing left behind.

    Raises
    ------
    TuckertreeError
        If one of them exists and may not be replaced, or cannot be written.
    """
    check_free_file(path, overwrite=overwrite)
    with _workshop(path) as workshop:
        yield workshop / path.name
        *others, main = sorted(workshop.iterdir(), key=lambda file: file.name == path.name)
        for other in others:
            check_free_file(path.parent / other.name, overwrite=overwrite)
        if others:
            path.unlink(missing_ok=True)  # whenever this is cut short, it does not stand beside new ones
        for made in (*others, main):
            made.replace(path.parent / made.name)


def check_free_file(path: Path, *, overwrite: bool) -> None:
    """Refuse a file that may not be written, before any work is done for it.

    Raises
    ------
    TuckertreeError
        If the path is a folder, or a file that may not be replaced.
    """
    if path.is_dir():
        raise TuckertreeError(f"{path} is a folder; name a file in it")
    if (path.exists() or path.is_symlink()) and not overwrite:
        raise TuckertreeError(f"{path} exists already; choose another output or pass --overwrite")


def write_atomically(path: Path, text: str) -> None:
    """Write a small text file, which readers see as it was or as it is to be, never in between."""
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
