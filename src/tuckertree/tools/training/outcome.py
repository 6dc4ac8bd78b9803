"""What a training run gives back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from tuckertree._base.errors import UsageError
from tuckertree.io import save_folder
from tuckertree.io.sizes import Size
from tuckertree.planning import Plan
from tuckertree.tools.settings import Settings


@dataclass(frozen=True)
class Outcome:
    """A trained network and how it came about.

    Attributes
    ----------
    model
        On the CPU, in evaluation mode: the weights of the last epoch, or their running average if the settings
        ask for one.
    history
        One row for each epoch: ``epoch`` from 1, ``learning_rate`` at its end, ``train_loss`` (with
        distillation), ``train_top1`` on augmented images, ``validation_loss`` and ``validation_top1``; with
        ``admm_rho`` also ``truncation_error``, the relative error that truncating the weights to the plan's
        ranks would make then.
    settings
        As they were given.
    seconds
        Of training and validation, those before an interruption included.
    data
        What was trained on, in words, with the numbers of images.
    distilled
        Whether a teacher took part.
    diverged
        Whether the loss became infinite or NaN, so that the model is that of the last epoch before.
    versions
        Of the packages that took part, and the machine.
    plan, architecture, input_size, report
        Of the compressed network, where they are known; they are needed to save it.

    Examples
    --------
    >>> import tuckertree as tt
    >>> settings = tt.Settings(epochs=1, batch_size=16, lr=0.001, limit_train=40, validation=0.2)
    >>> outcome = tt.train(tt.build("demo"), "demo", settings, progress=False)
    >>> outcome.data
    'demo (train): 32 images, 8 for validation'
    >>> [epoch["validation_top1"] > 50 for epoch in outcome.history], outcome.diverged
    ([True], False)
    """

    model: nn.Module
    history: Sequence[Mapping[str, object]]
    settings: Settings
    seconds: float
    data: str
    distilled: bool
    diverged: bool
    versions: Mapping[str, object]
    plan: Plan | None = None
    architecture: str | None = None
    input_size: Size | None = None
    report: Mapping[str, object] = field(default_factory=dict)

    def record(self) -> dict[str, Any]:
        """How it came about, as JSON data."""
        return {
            "settings": self.settings.to_json(),
            "data": self.data,
            "distilled": self.distilled,
            "diverged": self.diverged,
            "seconds": self.seconds,
            "history": [dict(row) for row in self.history],
            "versions": dict(self.versions),
        }

    def save(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write the saved folder; ``report.json`` gets :meth:`record` as ``training``.

        Raises
        ------
        UsageError
            If the plan of the network is not known, because the bare model was given for training.
        TuckertreeError
            If the folder exists and may not be replaced, or cannot be written.
        """
        if self.plan is None:
            raise UsageError("only a network trained from a CompressionResult has a plan to be saved with")
        return save_folder(
            path,
            self.model,
            self.plan,
            architecture=self.architecture,
            input_size=self.input_size,
            report={**self.report, "training": self.record()},
            overwrite=overwrite,
        )
