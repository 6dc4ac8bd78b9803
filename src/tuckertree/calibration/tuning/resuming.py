"""Where a run of tuning is kept from time to time, and goes on from when it was interrupted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from tuckertree._base.checkpoints import digest, read_checkpoint, refuse_another, write_checkpoint
from tuckertree.calibration.tuning.images import TuningImages
from tuckertree.calibration.tuning.record import Length
from tuckertree.measure.nested import leaves


class Checkpoint:
    """The file of one run; without a path nothing is kept.

    Attributes
    ----------
    state
        Of the run that was interrupted, if there is one.

    Raises
    ------
    UsageError
        If it is of another run.
    TuckertreeError
        If it cannot be read.
    """

    def __init__(self, path: Path | None, identity: Mapping[str, object]) -> None:
        self._path, self._identity = path, dict(identity)
        self.state: dict[str, Any] | None = None
        if path is not None and path.exists():
            self.state = read_checkpoint(path)
            refuse_another(path, self.state["identity"], self._identity)

    def write(self, state: Mapping[str, object]) -> None:
        """Keep a state; raises TuckertreeError if it cannot be written."""
        if self._path is not None:
            write_checkpoint(self._path, {"identity": self._identity, **state})

    def remove(self) -> None:
        """The run has ended."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)


def identity(
    length: Length, seed: int, model: nn.Module, original: nn.Module, images: TuningImages
) -> dict[str, object]:
    """What a run must have in common with a checkpoint to go on from it."""
    return {
        "steps": length.steps,
        "seconds": length.seconds,
        "seed": seed,
        "batch size": images.size,
        "network": digest(_tensors(model.state_dict())),
        "teacher": digest(_tensors(original.state_dict())),
        "images": digest(_tensors([*images.learned, *images.held])),
    }


def _tensors(value: object) -> Iterator[tuple[str, Tensor]]:
    return ((str(place), x) for place, x in enumerate(leaves(value)) if isinstance(x, Tensor))
