"""What a file is, by what is in it; nothing of it is unpickled or run."""

from __future__ import annotations

import zipfile
from pathlib import Path, PurePosixPath

from tuckertree._base.reading import check_regular

SAFETENSORS, CHECKPOINT, TORCHSCRIPT, EXPORTED = "safetensors", "checkpoint", "torchscript", "exported"
_ZIP, _PICKLE = b"PK\x03\x04", b"\x80"


def kind_of(path: Path) -> str | None:
    """Which of torch's kinds of file this is.

    Returns
    -------
    str or None
        ``SAFETENSORS``; ``CHECKPOINT``, of ``torch.save``; ``TORCHSCRIPT``, of ``torch.jit.save``; ``EXPORTED``, of
        ``torch.export.save``; None for any other.

    Raises
    ------
    TuckertreeError
        If it is there and is no regular file.
    OSError
        If it cannot be read.
    """
    check_regular(path)
    with path.open("rb") as file:
        start = file.read(9)
    if start[8:] == b"{":  # behind the length of a header in JSON
        return SAFETENSORS
    if start.startswith(_ZIP):
        return _kind_of_archive(path)
    return CHECKPOINT if start.startswith(_PICKLE) else None


def _kind_of_archive(path: Path) -> str | None:
    try:
        with zipfile.ZipFile(path) as archive:
            paths = [PurePosixPath(name).parts[:2] for name in archive.namelist()]
    except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError):
        return CHECKPOINT  # torch says what is wrong with it
    found = {parts[-1] for parts in paths if parts}  # behind the folder that most kinds have
    if "constants.pkl" in found:
        return TORCHSCRIPT
    if found & {"archive_format", "models", "serialized_exported_program.json"}:  # the last until torch 2.7
        return EXPORTED
    return CHECKPOINT if "data.pkl" in found else None
