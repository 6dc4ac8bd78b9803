"""Checkpoints: written whole or not at all, read without unpickling."""

from __future__ import annotations

import hashlib
import os
import pickle
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tuckertree._base.errors import TuckertreeError, UsageError, argument, first_line

FORMAT = 1
_HASHED = ("network", "teacher", "plan", "images")


def digest(tensors: Iterable[tuple[str, Tensor]]) -> str:
    """A hash of names, shapes and values, as of ``network.state_dict().items()``."""
    found = hashlib.sha256()
    for name, tensor in tensors:
        found.update(f"{name} {list(tensor.shape)} {tensor.dtype};".encode())
        found.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()[:16]


def write_checkpoint(path: Path, state: Mapping[str, object]) -> None:
    """Write a checkpoint beside the old one, then put it in its place.

    Raises
    ------
    TuckertreeError
        If it cannot be written, on a full disk for instance; the old one is still there.
    """
    fresh = path.with_name(path.name + ".new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with fresh.open("wb") as file:
            torch.save({"format": FORMAT, **state}, file)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    except (OSError, RuntimeError) as error:  # torch's writer turns some errors of the disk into RuntimeError
        fresh.unlink(missing_ok=True)
        reason = getattr(error, "strerror", None) or first_line(error)
        raise TuckertreeError(
            f"cannot write the checkpoint {path}: {reason}; make room, then go on with {argument('resume')}"
        ) from error


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint: tensors and plain data, nothing else is accepted.

    Raises
    ------
    TuckertreeError
        If it is damaged, of another format, or holds anything that would have to be unpickled.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, pickle.UnpicklingError, EOFError, ValueError, KeyError) as error:
        raise TuckertreeError(
            f"{path} is not a whole checkpoint of ours; delete {path.parent} and start again"
        ) from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise TuckertreeError(
            f"{path} is not a checkpoint of format {FORMAT}; go on with the version that wrote it"
        )
    return state


def differences(
    there: Mapping[str, object], wanted: Mapping[str, object], hashed: Collection[str]
) -> list[str]:
    """In what two descriptions differ, in words; of parts that are hashed only their name is said."""
    return [
        f"another {name}" if name in hashed else f"{name} {there.get(name)} there, {value} here"
        for name, value in wanted.items()
        if there.get(name) != value
    ]


def refuse_another(path: Path, there: Mapping[str, object], wanted: Mapping[str, object]) -> None:
    """Refuse a checkpoint of another run.

    Parameters
    ----------
    there, wanted
        What a run must have in common with its checkpoint, by name; of parts that are hashed only their name is said.

    Raises
    ------
    UsageError
        If they differ.
    """
    if differing := differences(there, wanted, _HASHED):
        raise UsageError(
            f"the checkpoint in {path} is of another run ({'; '.join(differing)}); "
            "go on with the same network and options, or delete it"
        )
