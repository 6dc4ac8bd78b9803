"""Checkpoints of a run: written whole or not at all, read without unpickling, refused if of another run."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tuckertree._base.errors import TuckertreeError, UsageError, argument, first_line
from tuckertree.planning import Plan
from tuckertree.tools.settings import Settings

FORMAT = 1
EPOCH, STEP = "epoch.ckpt", "step.ckpt"
# These say how the work is divided, not what is computed.
FREE = ("workers", "devices", "strategy", "compile")
_HASHED = ("network", "teacher", "plan")


def identity(
    settings: Settings, network: nn.Module, teacher: nn.Module | None, data: str, plan: Plan | None = None
) -> dict[str, object]:
    """What a run must have in common with a checkpoint to go on from it, as plain data."""
    ranks = None if plan is None else [[layer.name, layer.method, layer.ranks] for layer in plan.compressed]
    return {
        **{name: value for name, value in settings.to_json().items() if name not in FREE},
        "network": digest(network),
        "teacher": None if teacher is None else digest(teacher),
        "plan": None if ranks is None else hashlib.sha256(json.dumps(ranks).encode()).hexdigest()[:16],
        "data": data,
    }


def digest(network: nn.Module) -> str:
    """A hash of the names, shapes and values of a network's parameters and buffers."""
    found = hashlib.sha256()
    for name, tensor in network.state_dict().items():
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


def latest(folder: Path, wanted: Mapping[str, object]) -> dict[str, object] | None:
    """The checkpoint of a folder that is further on, or None if there is none.

    Raises
    ------
    UsageError
        If it is of a run with other settings, another network, teacher or data.
    TuckertreeError
        If it cannot be read.
    """
    found = [read_checkpoint(folder / name) for name in (EPOCH, STEP) if (folder / name).is_file()]
    for state in found:
        differing = [
            f"another {name}" if name in _HASHED else f"{name} {there} there, {value} here"
            for name, value in wanted.items()
            if (there := state["identity"].get(name)) != value
        ]
        if differing:
            raise UsageError(
                f"the checkpoint in {folder} is of another run ({'; '.join(differing)}); "
                "go on with the same network and options, or delete it"
            )
    return max(found, key=lambda state: (state["epoch"], state["batch"]), default=None)
