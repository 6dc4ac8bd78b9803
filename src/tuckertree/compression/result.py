"""What compress() gives back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from torch import nn

from tuckertree.calibration import Tuning
from tuckertree.compression.accuracy.record import AccuracySearch
from tuckertree.compression.int8 import InPrecision, Int8Network
from tuckertree.compression.onnx_output import OnnxOutput
from tuckertree.io import save_folder
from tuckertree.io.sizes import Size
from tuckertree.latency import fuse_as_planned
from tuckertree.planning import Plan, SurveyRecord


@dataclass(frozen=True)
class CompressionResult:
    """A compressed model and everything that is known about it.

    Attributes
    ----------
    model
        The compressed model: a copy of the original with :class:`~tuckertree.core.layers.Chain` in some places.
    plan
        What was done to each layer, and why; ``apply(original, plan)`` gives the same model again
        (of a model that was compressed already, ``apply(to_dense(model), plan)``).
    errors
        True relative error ``||W - W^||_F / ||W||_F`` of each compressed layer's weight, as it is stored.
    relative_error
        The same over all convolutions and linear layers together, dense ones included.
    seconds
        Time of the phases ``inventory``, ``probe``, ``images``, ``times``, ``plan``, ``factors`` or
        ``calibration``, ``tuning`` and ``errors``; of a budget of accuracy ``original`` and ``accuracy`` too.
    architecture
        Name from which :func:`tuckertree.build` makes the original architecture, if it has one.
    input_size
        Size of the example input without the batch, or of each by its keyword.
    output
        What was compressed is an ONNX file: the file that is written, compared with it in ONNX Runtime.
    tuning
        What :func:`tuckertree.tune` did, or None.
    distances
        Relative distance of the outputs from the original's after calibration, ``"fitted"`` on the images that the
        factors were fitted to and ``"held out"`` on the others, with their numbers; empty where there are none.
    accuracy
        How a budget of accuracy was searched for and proved, or None.
    int8
        The network in 8 bits, where a budget of latency is kept by it, or None.
    precisions
        Of a budget that allows several precisions, what became of each.
    survey
        Spectra and trade-off curve that the plan was chosen by, at a few points; they are kept in ``report.json``.

    Examples
    --------
    >>> import tempfile, torch, tuckertree as tt
    >>> model, image = tt.build("demo"), torch.zeros(1, 3, 32, 32)
    >>> result = tt.compress(model, image, energy=0.8)
    >>> result.plan.parameters[1] < 0.6 * result.plan.parameters[0]
    True
    >>> result.fused() is result.model  # no latency was measured
    True
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     loaded = tt.load(result.save(f"{folder}/small"))
    >>> torch.equal(loaded(image), result.model(image))
    True
    """

    model: nn.Module
    plan: Plan
    errors: Mapping[str, float]
    relative_error: float
    seconds: Mapping[str, float] = field(default_factory=dict)
    architecture: str | None = None
    input_size: Size | None = None
    output: OnnxOutput | None = None
    tuning: Tuning | None = None
    distances: Mapping[str, float] = field(default_factory=dict)
    accuracy: AccuracySearch | None = None
    int8: Int8Network | None = None
    precisions: tuple[InPrecision, ...] = ()
    survey: SurveyRecord | None = None

    def __str__(self) -> str:
        """Table of the layers and the totals."""
        from tuckertree.io.report import result_text

        warnings = [f"warning     {warning}" for warning in self.warnings]
        return "\n".join([result_text(self), *self.lines(), *warnings])

    def lines(self) -> list[str]:
        """What there is to say beside plan and totals."""
        fitted = []
        if found := self.distances:
            fitted = [
                f"distance    of the outputs from the original's: {found['fitted']:.1%} on the {found['images fitted']:.0f} "
                f"images fitted to, {found['held out']:.1%} on {found['images held out']:.0f} held out"
            ]
        tuned = [] if self.tuning is None else [f"tuned       {self.tuning}"]
        kept = [] if self.accuracy is None else self.accuracy.lines()
        each = "; ".join(map(str, self.precisions))
        chosen = [f"precisions  {each}{self._why()}"] if self.precisions else []
        chosen += [] if self.int8 is None else self.int8.lines()
        return fitted + tuned + kept + chosen + ([] if self.output is None else self.output.lines())

    def _why(self) -> str:
        """Which of the precisions was taken, and why."""
        tried = {one.precision: one for one in self.precisions if not one.precision.endswith(" alone")}
        if self.plan.latency is None or len(tried) < 2:
            return ""
        others = [one for name, one in tried.items() if name != self.plan.latency.precision]
        if any(one.kept and not one.unchanged for one in others):
            why = "the nearest of those that keep the target"
        elif any(one.unchanged for one in others):
            why = "the others would change nothing"
        else:
            why = "no other keeps the target"
        return f": {self.plan.latency.precision} is taken, {why}"

    @property
    def fitted(self) -> bool:
        """Whether factors were fitted to images, by calibration or tuning."""
        return bool({"calibration", "tuning"} & {*self.seconds})

    @property
    def warnings(self) -> list[str]:
        """Reasons to doubt that the network is of use, beside those that its plan gives."""
        from tuckertree.io.report import too_few_images

        return [
            *([] if self.accuracy is None else self.accuracy.warnings),
            *too_few_images(self.distances),
            *([] if self.int8 is None else self.int8.warnings()),
            *([] if self.output is None else self.output.warnings(fitted=self.fitted)),
        ]

    def fused(self) -> nn.Module:
        """The network as it was measured, to be run, timed and exported; :attr:`model` is the one to train on.

        Of a budget of latency neighbouring factors are multiplied out as the plan says (``form``), which is the
        same function up to rounding. Otherwise nothing was measured, and this is :attr:`model` itself. Of a plan in 8 bits
        it is what was quantized; what was measured is the file :attr:`int8`.
        """
        return fuse_as_planned(self.model, self.plan)

    def save(
        self, path: str | Path, *, overwrite: bool = False, report: Mapping[str, object] | None = None
    ) -> Path:
        """Write the saved folder: ``config.json``, ``model.safetensors``, ``report.json``; of an ONNX file another.

        Of a plan in 8 bits there is ``int8.onnx`` too. An ONNX file keeps plan and report in its metadata
        (:func:`tuckertree.io.onnx_record.read_record`), without seconds of the phases: the same again is the same file.

        Parameters
        ----------
        path
            The folder. It appears whole or not at all.
        overwrite
            Whether a saved folder that is there already may be replaced.
        report
            More to be kept in ``report.json``, such as accuracies.

        Raises
        ------
        TuckertreeError
            If the folder exists and may not be replaced, or cannot be written.
        """
        more = {**({"survey": self.survey.to_json()} if self.survey else {}), **(report or {})}
        if self.output is not None:
            kept = {**self._figures(), **more}
            return self.output.save(Path(path), overwrite=overwrite, plan=self.plan, report=kept)
        return save_folder(
            path,
            self.model,
            self.plan,
            architecture=self.architecture,
            input_size=self.input_size,
            int8=None if self.int8 is None else self.int8.content,
            report={**self.summary(), **more},
            overwrite=overwrite,
        )

    def summary(self) -> dict[str, object]:
        """What was measured, as JSON data: sizes before and after, errors, seconds."""
        return {
            **self._figures(),
            "seconds": dict(self.seconds),
            **({} if self.output is None else self.output.summary()),
        }

    def _figures(self) -> dict[str, object]:
        """The same without times of phases, and without what a file alone can say."""
        return {
            "parameters": list(self.plan.parameters),
            "macs": list(self.plan.macs),
            "relative_error": self.relative_error,
            "errors": dict(self.errors),
            "fitted": self.fitted,
            **({"latency": self.plan.latency.to_json()} if self.plan.latency else {}),
            **({"distances": dict(self.distances)} if self.distances else {}),
            **({"tuning": self.tuning.to_json()} if self.tuning else {}),
            **({"accuracy": self.accuracy.to_json()} if self.accuracy else {}),
            **({} if self.int8 is None else {"int8": self.int8.summary()}),
            **({"precisions": [asdict(each) for each in self.precisions]} if self.precisions else {}),
        }
