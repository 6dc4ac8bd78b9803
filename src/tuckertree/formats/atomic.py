"""A folder that appears whole or not at all."""

from __future__ import annotations

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
def atomic_folder(path: Path, *, marker: str, overwrite: bool) -> Iterator[Path]:
    """Give an empty folder to write in, which becomes ``path`` when the block ends without an error.

    Whatever goes wrong inside, a full disk or Ctrl-C too, leaves ``path`` as it was and nothing beside it.

    Raises
    ------
    TuckertreeError
        If ``path`` may not be replaced, or cannot be written.
    """
    check_free(path, marker=marker, overwrite=overwrite)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        workshop = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    except OSError as error:
        raise TuckertreeError(f"cannot write {path}: {error.strerror or error}") from error
    try:
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
    except OSError as error:
        raise TuckertreeError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(workshop, ignore_errors=True)
