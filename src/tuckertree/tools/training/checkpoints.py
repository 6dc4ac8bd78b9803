"""Checkpoints of a run, refused if of another one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from torch import nn

from tuckertree._base.checkpoints import digest, read_checkpoint, refuse_another
from tuckertree.planning import Plan
from tuckertree.tools.settings import Settings

EPOCH, STEP = "epoch.ckpt", "step.ckpt"
# These say how the work is divided, not what is computed.
FREE = ("workers", "devices", "strategy", "compile")


def identity(
    settings: Settings, network: nn.Module, teacher: nn.Module | None, data: str, plan: Plan | None = None
) -> dict[str, object]:
    """What a run must have in common with a checkpoint to go on from it, as plain data."""
    ranks = None if plan is None else [[layer.name, layer.method, layer.ranks] for layer in plan.compressed]
    return {
        **{name: value for name, value in settings.to_json().items() if name not in FREE},
        "network": digest(network.state_dict().items()),
        "teacher": None if teacher is None else digest(teacher.state_dict().items()),
        "plan": None if ranks is None else hashlib.sha256(json.dumps(ranks).encode()).hexdigest()[:16],
        "data": data,
    }


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
        refuse_another(folder, state["identity"], wanted)
    return max(found, key=lambda state: (state["epoch"], state["batch"]), default=None)
