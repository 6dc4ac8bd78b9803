"""Folders and files that appear whole or not at all."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tuckertree._base.errors import TuckertreeError, argument
from tuckertree._base.reading import read_json

if sys.platform != "win32":
    import fcntl


@dataclass(frozen=True)
class Kind:
    """What folders that we write are known by.

    Attributes
    ----------
    marker
        Name of the JSON file that each of them has.
    fields
        Fields of that file and their types; others may stand beside them.
    entries
        Names of all that we ever write in them.
    """

    marker: str
    fields: Mapping[str, type]
    entries: frozenset[str]

    def marks(self, folder: Path) -> bool:
        """Whether a folder has the marker, with its fields."""
        try:
            data = read_json(folder / self.marker)
        except TuckertreeError:
            return False
        return isinstance(data, dict) and all(isinstance(data.get(k), t) for k, t in self.fields.items())


def check_free(path: Path, *, kind: Kind, overwrite: bool) -> None:
    """Refuse a target that may not be replaced, before any work is done for it.

    Parameters
    ----------
    kind
        What is to be written; no folder of another kind, or with other files in it, is ever replaced.

    Raises
    ------
    TuckertreeError
        If the path exists and may not be replaced.
    """
    if not path.exists() and not path.is_symlink():
        return
    if not path.is_dir() or path.is_symlink():
        raise TuckertreeError(f"{path} exists and is not a folder; choose another output")
    names = {entry.name for entry in path.iterdir()}
    if not names:
        return
    others = sorted(names - kind.entries)
    if others or not kind.marks(path):
        such = f" ({others[0]})" if others else ""
        raise TuckertreeError(f"{path} exists and holds other files{such}; choose another output")
    if not overwrite:
        raise TuckertreeError(f"{path} exists already; choose another output or pass {argument('overwrite')}")


@contextmanager
def folder_beside(path: Path) -> Iterator[Path]:
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
def atomic_folder(path: Path, *, kind: Kind, overwrite: bool) -> Iterator[Path]:
    """Give an empty folder to write in, which becomes ``path`` when the block ends without an error.

    Whatever goes wrong inside, a full disk or Ctrl-C too, leaves ``path`` as it was and nothing beside it. Of two
    programs that make the same folder at the same time the second to end is refused, if it may not replace.

    Raises
    ------
    TuckertreeError
        If ``path`` may not be replaced, or cannot be written.
    """
    check_free(path, kind=kind, overwrite=overwrite)
    with folder_beside(path) as workshop:
        new, old = workshop / "new", workshop / "old"
        new.mkdir()
        yield new
        with alone_in(path.parent):
            check_free(path, kind=kind, overwrite=overwrite)  # another program may have been first
            try:
                if path.exists():
                    path.rename(old)
                new.rename(path)
            except BaseException:
                if old.exists() and not path.exists():
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
    with folder_beside(path) as workshop:
        yield workshop / path.name
        *others, main = sorted(workshop.iterdir(), key=lambda file: file.name == path.name)
        with alone_in(path.parent):
            for made in (*others, main):
                check_free_file(path.parent / made.name, overwrite=overwrite)
            if others:
                path.unlink(missing_ok=True)  # whenever this is cut short, it does not stand beside new ones
            for made in (*others, main):
                made.replace(path.parent / made.name)


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Wait until no other program puts something in its place in a folder, and let none do so in the block.

    The lock is the system's and ends with the program. Where there is none, in Windows and on some network disks,
    renaming alone keeps them apart.
    """
    if sys.platform == "win32":
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Make a folder for work that takes long, and keep other programs out of it; removed at the end if empty.

    Raises
    ------
    TuckertreeError
        If another program is at work in it, or it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = None if sys.platform == "win32" else os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise TuckertreeError(f"cannot write {folder}: {error.strerror or error}") from error
    try:
        _lock(handle, folder)
        try:
            yield
        finally:
            with suppress(OSError):
                folder.rmdir()
    finally:
        if handle is not None:
            os.close(handle)


def _lock(handle: int | None, folder: Path) -> None:
    """Lock a folder, which another program may have locked, or removed since it was opened."""
    if sys.platform == "win32" or handle is None:
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        alone = folder.exists() and os.path.samestat(os.fstat(handle), folder.stat())
    except BlockingIOError:
        alone = False
    except OSError:
        return  # this disk knows no locks
    if not alone:
        raise TuckertreeError(f"another program is at work in {folder}; choose another output")


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
        raise TuckertreeError(f"{path} exists already; choose another output or pass {argument('overwrite')}")


def write_atomically(path: Path, text: str) -> None:
    """Write a small text file, which readers see as it was or as it is to be, never in between.

    Raises
    ------
    TuckertreeError
        If it cannot be written.
    """
    with folder_beside(path) as workshop:
        fresh = workshop / path.name
        fresh.write_text(text, encoding="utf-8")
        fresh.replace(path)
