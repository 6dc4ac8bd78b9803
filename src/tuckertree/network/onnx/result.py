"""What compress_onnx() gives: the written file, the plan behind it, and what was measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tuckertree.io.report import is_fitted
from tuckertree.network.onnx.agreement import Agreement
from tuckertree.planning import Plan

_LOST = 0.5
"""Relative error of the outputs from which on little is left of them."""


@dataclass(frozen=True)
class OnnxResult:
    """What was done to an ONNX model.

    Attributes
    ----------
    path
        The file that was written; external data, if any, lie beside it under the name with ``.data`` added.
    plan
        What was done to each layer, and why; sizes and MACs are those of the file.
    errors
        True relative error of each compressed layer's weight, as it is stored.
    relative_error
        The same over all layers together that could be compressed.
    outputs
        Outputs of the saved file and of the original in ONNX Runtime, compared.
    compared_on
        What the outputs were compared on.
    notes
        What was done to the file beside that, and what is not among the layers.
    bytes
        Size of the model before and after, external data included.
    seconds
        Time of each phase.
    """

    path: Path
    plan: Plan
    errors: Mapping[str, float]
    relative_error: float
    outputs: Agreement
    compared_on: str
    bytes: tuple[int, int]
    seconds: Mapping[str, float]
    notes: tuple[str, ...] = ()

    @property
    def output_error(self) -> float | None:
        """Relative error of all floating-point outputs; None if nothing could be compared."""
        return self.outputs.error

    def __str__(self) -> str:
        """Table of the layers and the totals."""
        from tuckertree.io.report import result_text

        return "\n".join([result_text(self), *self.lines()])

    def lines(self, *, warned: bool = True) -> list[str]:
        """What there is to say beside the plan, warnings last."""
        before, after = (size / 1e6 for size in self.bytes)
        return [
            *(f"note        {note}" for note in self.notes),
            f"outputs     {self.outputs} (ONNX Runtime, {self.compared_on})",
            f"file        {before:.2f} MB -> {after:.2f} MB",
            *(f"warning     {warning}" for warning in self.warnings if warned),
        ]

    @property
    def warnings(self) -> list[str]:
        """Reasons to doubt that the file is of use."""
        outputs, found = self.outputs, list[str]()
        if outputs.not_finite:
            found.append(
                f"{outputs.not_finite:.2%} of the numbers became NaN or infinite; the input was random, which the model "
                "may not be made for: give images (--calibration) or values (--input-values)"
            )
        if (outputs.error or 0) > _LOST:
            found.append(
                f"the outputs differ by {outputs.error:.0%} of their norm on {self.compared_on}: "
                f"{'' if is_fitted(self) else 'give images (--calibration), '}leave layers out (--exclude), or give a "
                "larger budget"
            )
        return found

    def summary(self) -> dict[str, Any]:
        """What was measured, as JSON data."""
        return {
            "parameters": list(self.plan.parameters),
            "macs": list(self.plan.macs),
            "bytes": list(self.bytes),
            "relative_error": self.relative_error,
            "output_error": self.outputs.error,
            "outputs_same": self.outputs.same,
            "outputs_left_out": list(self.outputs.left_out),
            "compared_on": self.compared_on,
            "notes": list(self.notes),
            "warnings": self.warnings,
            "errors": dict(self.errors),
            "seconds": dict(self.seconds),
            **({"latency": asdict(self.plan.latency)} if self.plan.latency else {}),
        }
