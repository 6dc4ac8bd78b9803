"""The ONNX file that a compression gives: written whole or not at all, and run against the original."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from torch import nn

from tuckertree._base.extras import require_extra
from tuckertree.calibration import Calibration, CalibrationData
from tuckertree.compression.onnx_batches import onnx_calibration
from tuckertree.io.onnx_record import drop_record, write_record
from tuckertree.network.onnx.agreement import Agreement, compare_sessions
from tuckertree.network.onnx.files import OnnxFile
from tuckertree.network.onnx.graph import Graph
from tuckertree.network.onnx.inputs import Feed
from tuckertree.network.onnx.layers import OnnxInventory, folded_notes, round_as_stored
from tuckertree.network.onnx.module import OnnxModule
from tuckertree.network.onnx.rewriting import rewrite
from tuckertree.network.onnx.runtime import Session
from tuckertree.network.onnx.writing import data_file, written
from tuckertree.planning import Plan

if TYPE_CHECKING:
    from onnx import ModelProto

_LOST = 0.5
"""Relative error of the outputs from which on little is left of them."""


class OnnxOutput:
    """A file with chains as nodes, not yet written, or written and compared with the original.

    Parameters
    ----------
    file, graph, found
        The original, and its layers.
    plan
        What was done to each.
    modules
        The original and the compressed network.
    trials
        Inputs to compare on, what they are, and whether they are made up.
    int8
        The file, where it is the compressed network in 8 bits.

    Attributes
    ----------
    notes
        What was done to the file beside the plan, and what is not among the layers.
    compared_on
        What the outputs were compared on.
    """

    def __init__(
        self,
        file: OnnxFile,
        graph: Graph,
        found: OnnxInventory,
        plan: Plan,
        modules: tuple[OnnxModule, nn.Module],
        trials: tuple[list[Feed], str, bool],
        int8: bytes | None = None,
    ) -> None:
        self._file, self._graph, self._layers, self._modules = file, graph, found.layers, modules
        self._feeds, self.compared_on, self._made_up = trials
        names = [layer.name for layer in plan.compressed]
        self._plan, self._found, self._int8 = plan, found, int8
        self.notes = (*found.inventory.notes, *folded_notes(found.layers, names))
        self._compared: tuple[Agreement, tuple[int, int]] | None = None

    @property
    def original(self) -> OnnxModule:
        """The original file in torch."""
        return self._modules[0]

    def images(self, source: CalibrationData) -> Calibration:
        """Calibration images in the form that the file takes."""
        return onnx_calibration(source, self._graph)

    def with_module(self, compressed: nn.Module) -> OnnxOutput:
        """The same with another compressed network, rounded to the types that the file holds."""
        round_as_stored(self._layers, compressed)
        trials = self._feeds, self.compared_on, self._made_up
        return OnnxOutput(
            self._file, self._graph, self._found, self._plan, (self.original, compressed), trials
        )

    def save(
        self,
        path: Path,
        *,
        overwrite: bool,
        plan: Plan | None = None,
        report: Mapping[str, object] | None = None,
    ) -> Path:
        """Write the file and compare it with the original before it takes its name.

        Parameters
        ----------
        plan, report
            What is kept in it as in a saved folder; nothing without them.

        Raises
        ------
        TuckertreeError
            If it cannot be written, or does not run.
        """
        proto = self._proto()
        drop_record(proto)  # of the original, which tells of another network
        if plan is not None:
            write_record(proto, self._file.path.name, plan, report or {})
        with written(path, proto, self._file, overwrite=overwrite) as new:
            self._compare(new)
        return path

    @property
    def outputs(self) -> Agreement:
        """Outputs of the file and of the original in ONNX Runtime, compared."""
        return self._measured()[0]

    @property
    def error(self) -> float | None:
        """Relative error of all floating-point outputs; None if nothing could be compared."""
        return self.outputs.error

    @property
    def bytes(self) -> tuple[int, int]:
        """Size of the model before and after, external data included; as it was saved, or would be without its record."""
        return self._measured()[1]

    def warnings(self, *, fitted: bool) -> list[str]:
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
                f"{'' if fitted else 'give images (--calibration), '}leave layers out (--exclude), or give a larger "
                "budget"
            )
        return found

    def lines(self) -> list[str]:
        """What there is to say beside the plan."""
        before, after = (size / 1e6 for size in self.bytes)
        return [
            *(f"note        {note}" for note in self.notes),
            f"outputs     {self.outputs} (ONNX Runtime, {self.compared_on})",
            f"file        {before:.2f} MB -> {after:.2f} MB",
        ]

    def summary(self) -> dict[str, object]:
        """What was measured, as JSON data."""
        return {
            "bytes": list(self.bytes),
            "output_error": self.outputs.error,
            "outputs_same": self.outputs.same,
            "outputs_left_out": list(self.outputs.left_out),
            "compared_on": self.compared_on,
            "notes": list(self.notes),
        }

    def _proto(self) -> ModelProto:
        if self._int8 is not None:
            proto: ModelProto = require_extra("onnx", extra="onnx").load_from_string(self._int8)
            return proto
        return rewrite(self._graph, self._layers, *self._modules)

    def _measured(self) -> tuple[Agreement, tuple[int, int]]:
        if self._compared is None:
            with TemporaryDirectory(prefix="tuckertree-") as folder:
                self.save(Path(folder) / self._file.path.name, overwrite=False)
        assert self._compared is not None
        return self._compared

    def _compare(self, new: Path) -> None:
        data = data_file(new)
        after = new.stat().st_size + (data.stat().st_size if data.exists() else 0)
        outputs = compare_sessions(Session(self._file.path), Session(new), self._feeds, self._made_up)
        self._compared = outputs, (self._file.size, after)
