"""compress(): a trained network in, a smaller one out, with the plan that made it."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tuckertree._base.errors import UnreachableTargetError, UsageError
from tuckertree._base.progress import parallel_map, progress_bar
from tuckertree.calibration import CalibrationData, calibrate
from tuckertree.compression.networks import Network, network_of
from tuckertree.compression.objectives import AnyRule, Objective, find_objective, survey_network
from tuckertree.compression.onnx_output import OnnxOutput
from tuckertree.core.layers import METHODS, Chain, LayerSpec, weight_of
from tuckertree.io import save_folder
from tuckertree.io.sizes import Size
from tuckertree.latency import fuse_as_planned
from tuckertree.measure import ExampleInputs
from tuckertree.network.surgery import apply
from tuckertree.planning import (
    DENSE,
    Budget,
    Energy,
    Inventory,
    Layer,
    NetworkRule,
    Options,
    Plan,
    Ranks,
    make_plan,
    peculiarity,
    survey,
)
from tuckertree.planning.plan import list_reasons
from tuckertree.planning.planner import Choice


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
        ``calibration``, and ``errors``.
    architecture
        Name from which :func:`tuckertree.build` makes the original architecture, if it has one.
    input_size
        Size of the example input without the batch, or of each by its keyword.
    output
        What was compressed is an ONNX file: the file that is written, compared with it in ONNX Runtime.
    """

    model: nn.Module
    plan: Plan
    errors: Mapping[str, float]
    relative_error: float
    seconds: Mapping[str, float] = field(default_factory=dict)
    architecture: str | None = None
    input_size: Size | None = None
    output: OnnxOutput | None = None

    def __str__(self) -> str:
        """Table of the layers and the totals."""
        from tuckertree.io.report import result_text

        warnings = [f"warning     {warning}" for warning in self.warnings]
        return "\n".join([result_text(self), *self.lines(), *warnings])

    def lines(self) -> list[str]:
        """What there is to say beside plan and totals."""
        return [] if self.output is None else self.output.lines()

    @property
    def warnings(self) -> list[str]:
        """Reasons to doubt that the network is of use, beside those that its plan gives."""
        from tuckertree.io.report import is_fitted

        return [] if self.output is None else self.output.warnings(fitted=is_fitted(self))

    def fused(self) -> nn.Module:
        """The network as it was measured, to be run, timed and exported; :attr:`model` is the one to train on.

        Of a budget of latency neighbouring factors are multiplied out as the plan says (``form``), which is the
        same function up to rounding. Otherwise nothing was measured, and this is :attr:`model` itself.
        """
        return fuse_as_planned(self.model, self.plan)

    def save(
        self, path: str | Path, *, overwrite: bool = False, report: Mapping[str, Any] | None = None
    ) -> Path:
        """Write the saved folder: ``config.json``, ``model.safetensors``, ``report.json``; of an ONNX file another.

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
        if self.output is not None:
            return self.output.save(Path(path), overwrite=overwrite)
        return save_folder(
            path,
            self.model,
            self.plan,
            architecture=self.architecture,
            input_size=self.input_size,
            report={**self.summary(), **(report or {})},
            overwrite=overwrite,
        )

    def summary(self) -> dict[str, Any]:
        """What was measured, as JSON data: sizes before and after, errors, seconds."""
        return {
            "parameters": list(self.plan.parameters),
            "macs": list(self.plan.macs),
            "relative_error": self.relative_error,
            "errors": dict(self.errors),
            "seconds": dict(self.seconds),
            **({"latency": asdict(self.plan.latency)} if self.plan.latency else {}),
            **({} if self.output is None else self.output.summary()),
        }


def compress(
    model: nn.Module | str | Path | Network,
    example_inputs: ExampleInputs | None = None,
    rule: AnyRule | None = None,
    *,
    energy: float | None = None,
    include: str | Sequence[str] | Choice = ("*",),
    exclude: str | Sequence[str] | Choice = (),
    first: str = "svd",
    round_to: int | None = None,
    methods: Sequence[str] = METHODS,
    calibration: CalibrationData | None = None,
    objective: str | Objective | None = None,
    progress: bool | None = None,
) -> CompressionResult:
    """Compress a trained network by hierarchical Tucker-2 decomposition.

    Parameters
    ----------
    model
        Any torch model; it is not changed. One that is compressed already is multiplied out first
        (:func:`tuckertree.to_dense`) and compressed anew: sizes and budgets count against the dense network,
        errors and calibration against the weights and outputs of the model given. Or the path of an ONNX file, or
        an :class:`~tuckertree.compression.OnnxNetwork` where the size of its inputs is open: Conv, ConvTranspose,
        Gemm and MatMul nodes with constant weights become chains of such nodes, all else is written as it was.
    example_inputs
        What the model is called with once, to see its layers at work: a tensor, a sequence of positional or
        a mapping of keyword arguments. MACs are counted at its size. An ONNX file needs none: by themselves its
        inputs are random.
    rule
        ``Energy(0.9)`` (the paper), ``ErrorBound(0.1)``, ``Ranks({...})``, ``Budget(macs=0.5, params="2x")`` or
        ``Budget(latency="2x", runtime="onnxruntime", threads=2)``, which times layers and networks;
        ``energy=0.9`` means the first.
    include, exclude
        Layers by name: a shell pattern, several of them, or a predicate on a
        :class:`~tuckertree.planning.Layer`.
    first
        The first convolution: ``svd`` of the T-mode (the paper), ``ht2``, or left ``dense``.
    round_to
        Round ranks up to a multiple of this (8 or 16 suits most CPUs). By default 1; for a budget of
        latency 16, 8 or 4 by the width of the layer.
    methods
        Names of the methods that a budget chooses among, such as ``("ht2", "svd")`` or ``("cp",)``; by default HT-2,
        Tucker-2, the spatial SVD and the SVD. Other rules use ``ht2`` and ``svd``, which must be among them.
    calibration
        A few hundred unlabelled inputs (a tensor or array, a data set, a DataLoader, a list of batches or of single
        images), in the form of the example: factors are then fitted to the layers' outputs on them, layer after
        layer, each making up for what those before it have lost. What a batch has beyond the example, such as
        labels, is dropped. Layers that stay dense are fitted to what they get by then, and means and BatchNorm
        statistics are corrected; layers that are left out (``include``, ``exclude``), parameters that are frozen
        (``requires_grad=False`` where others are not) and BatchNorms behind them stay as they are, to the bit.
    objective
        What a budget makes small: ``outputs``, the change of the network's output (default with
        calibration), predicted from derivatives; ``sensitivity``, the same, measured by trying each layer
        alone; ``moments``, the sum of the layers' relative output errors; ``weight``, that of their relative
        weight errors (default without); or an :class:`~tuckertree.compression.Objective` of one's own.
    progress
        Draw a progress bar on stderr; by default where stderr is a terminal.

    Returns
    -------
    CompressionResult
        Layers that would not get smaller stay dense, with the reason in the plan.

    Raises
    ------
    UsageError
        If the rule is missing or given twice, or an option has a value it cannot have.
    UnreachableTargetError
        If no layer can be compressed, or a budget cannot be met; the message says why, or what can.
    TuckertreeError
        If the model is no torch module with layers and weights, cannot be copied, does not run on the inputs, or a
        weight holds NaN or infinite values.
    """
    if energy is not None and rule is None:
        rule = Energy(energy)
    elif energy is not None or rule is None:
        raise UsageError("give either a rule or an energy, such as energy=0.9")
    timed = rule if isinstance(rule, Budget) and rule.latency is not None else None
    round_to = 1 if round_to is None and not timed else round_to
    options = Options(_patterns(include), _patterns(exclude), first, round_to, methods).for_rule(rule)
    objective = find_objective(objective, rule, calibrated=calibration is not None)
    stopwatch = Stopwatch()
    network = network_of(model, example_inputs)
    images = None if calibration is None else network.images(calibration)
    with progress_bar(progress) as tick, network.opened(images):
        inventory = network.inventory()
        options = options.among(inventory.layers)
        _refuse_if_all_stay(inventory, options, network.layers_are)
        dense = network.module
        stopwatch.lap("inventory")
        inventory = network.probed(inventory, options)
        stopwatch.lap("probe")
        if images is not None:
            network.check_images(images)
            stopwatch.lap("images")
        if isinstance(rule, NetworkRule):
            target = timer = None
            if timed:
                target = network.target(timed)
                inventory, timer = target.measure(inventory, options, tick=tick)
                stopwatch.lap("times")
            candidates, objective = survey_network(
                dense, inventory, options, objective, images, timer=timer, tick=tick
            )
            if target is not None:
                plan = target.plan(inventory, candidates, options, tick=tick)
            else:
                plan = make_plan(inventory, candidates, rule, options)
            plan = replace(plan, rule={**plan.rule, **objective.describe()})
            spectra = None if objective.weighs else {name: x.spectra for name, x in candidates.items()}
        else:
            spectra = survey(dense, inventory, options, tick=tick)
            plan = make_plan(inventory, spectra, rule, options)
        if not plan.compressed:
            raise UnreachableTargetError(_nothing_to_compress(plan))
        stopwatch.lap("plan")
        network.settle()
        if images is None:
            compressed = apply(dense, plan, spectra=spectra, tick=tick)
            stopwatch.lap("factors")
        else:
            notes: dict[str, str] = {}
            compressed = calibrate(dense, plan, images, notes=notes, tick=tick)
            plan = plan.noted(notes)
            stopwatch.lap("calibration")
        compressed, plan = network.finished(compressed, plan, inventory)
        errors, relative_error = measure_errors(dense, compressed, filter(network.weighs, inventory.layers))
        stopwatch.lap("errors")
    return CompressionResult(
        model=compressed,
        plan=plan,
        errors=errors,
        relative_error=relative_error,
        seconds=stopwatch.seconds,
        architecture=getattr(dense, "architecture_name", None),
        input_size=network.input_size,
        output=network.output(compressed, plan, images),
    )


class Stopwatch:
    """Seconds of each phase of a compression."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, phase: str) -> None:
        """End a phase."""
        now = time.perf_counter()
        self.seconds[phase] = round(now - self._last, 4)
        self._last = now


def _patterns(wanted: str | Sequence[str] | Choice) -> Sequence[str] | Choice:
    return (wanted,) if isinstance(wanted, str) else wanted


def measure_errors(
    model: nn.Module, compressed: nn.Module, layers: Iterable[Layer]
) -> tuple[dict[str, float], float]:
    """True relative errors of the weights of chains, by layer, and of all layers' weights together."""

    def work(layer: Layer) -> tuple[float | None, float]:
        if peculiarity(model.get_submodule(layer.name)):
            return None, 0.0  # no tensor of numbers: it stays as it is, and has no norm here
        weight = weight_of(model.get_submodule(layer.name)).detach()
        norm = float(torch.linalg.vector_norm(weight.to(torch.promote_types(weight.dtype, torch.float32))))
        chain = compressed.get_submodule(layer.name)
        if not isinstance(chain, Chain):
            return None, norm
        return chain.factors().relative_error(LayerSpec.kernel(chain.dense, weight)), norm

    layers = list(layers)
    measured = parallel_map(work, layers)
    errors = {layer.name: e for layer, (e, _) in zip(layers, measured, strict=True) if e is not None}
    total = sum(norm**2 for _, norm in measured)
    lost = sum((e or 0) ** 2 * norm**2 for e, norm in measured)
    return errors, (lost / total) ** 0.5 if total else 0.0


def _refuse_if_all_stay(inventory: Inventory, options: Options, layers_are: str) -> None:
    """Say why nothing can be compressed before a rule says that its target cannot be reached."""
    if not inventory.layers:
        notes = f" ({'; '.join(inventory.notes)})" if inventory.notes else ""
        raise UnreachableTargetError(f"nothing to compress: the model has no {layers_are}{notes}")
    if all(options.method(layer)[0] == DENSE for layer in inventory.layers):
        raise UnreachableTargetError(_nothing_to_compress(make_plan(inventory, {}, Ranks({"*": 1}), options)))


def _nothing_to_compress(plan: Plan) -> str:
    """Say why a plan leaves everything as it is."""
    reasons = list_reasons(layer.reason for layer in plan.layers if layer.method == DENSE)
    return f"nothing to compress: all {len(plan.layers)} layers stay dense ({reasons})"
