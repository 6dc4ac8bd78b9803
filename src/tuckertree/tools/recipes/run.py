"""What a run of a recipe keeps while it is under way, so that it goes on with the same networks anywhere."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from tuckertree._base.errors import TuckertreeError, argument
from tuckertree.compression import CompressionResult
from tuckertree.io import load_folder, read_report
from tuckertree.planning import Plan
from tuckertree.tools.models import build


@dataclass(frozen=True)
class Start:
    """A network as a stage begins to train it."""

    model: nn.Module
    plan: Plan
    relative_error: float


@dataclass(frozen=True)
class Run:
    """Where and how a run trains."""

    checkpoints: Path
    resume: bool
    device: str
    progress: bool | None

    def start(
        self,
        number: int,
        made_by: Mapping[str, object],
        dense: nn.Module,
        make: Callable[[nn.Module], CompressionResult],
    ) -> Start:
        """The network that a stage begins with: made once and kept, so that a run goes on with the same one anywhere.

        Raises
        ------
        TuckertreeError
            If the one that is there was made otherwise, or a run is there that is not to go on.
        """
        folder = (
            self.checkpoints / f"start-{number}" / "network"
        )  # the folder of checkpoints itself is locked
        asked = json.loads(json.dumps(made_by))
        if not self.resume and (self.checkpoints / f"stage-{number}").is_dir():
            raise TuckertreeError(
                f"{self.checkpoints} holds an unfinished run; go on with it by {argument('resume')}, or begin anew by "
                f"{argument('overwrite')}"
            )
        if not (self.resume and folder.is_dir()):
            result = make(dense)
            result.save(folder, overwrite=True, report={"made_by": asked})
            return Start(result.model, result.plan, result.relative_error)
        report = read_report(folder)
        error = report.get("relative_error")
        if report.get("made_by") != asked or not isinstance(error, float):
            raise TuckertreeError(
                f"{folder} was compressed otherwise than the recipe says; go on with the recipe and weights it was begun "
                f"with, or begin anew by {argument('overwrite')}"
            )
        model, config = load_folder(folder, build, dense)
        return Start(model, config.plan, error)

    def clear(self, stages: int) -> None:
        """Remove the checkpoints."""
        for number in range(stages):
            for kind in ("start", "stage"):
                shutil.rmtree(self.checkpoints / f"{kind}-{number}", ignore_errors=True)
