"""compress_onnx(): an ONNX file in, a smaller one out, with no framework that made it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from tuckertree._base.errors import UnreachableTargetError
from tuckertree._base.progress import ProgressCallback, progress_bar
from tuckertree.calibration import CalibrationData
from tuckertree.compression import Clock, measure_errors, nothing_to_compress
from tuckertree.compression.objectives import AnyRule
from tuckertree.core.layers import METHODS, Chain
from tuckertree.latency import run_as_planned
from tuckertree.network.onnx.agreement import compare_sessions
from tuckertree.network.onnx.calibrating import (
    OnnxCalibration,
    calibrate_onnx,
    chains_of,
)
from tuckertree.network.onnx.examples import is_made_up
from tuckertree.network.onnx.files import OnnxFile, read_onnx
from tuckertree.network.onnx.functions import inlined
from tuckertree.network.onnx.graph import Graph
from tuckertree.network.onnx.inputs import (
    Sizes,
    Values,
)
from tuckertree.network.onnx.latency import count_as_run, onnx_runtime_of, onnx_target
from tuckertree.network.onnx.layers import (
    OnnxInventory,
    Skeleton,
    build_skeleton,
    folded_notes,
    round_as_stored,
    take_onnx_inventory,
)
from tuckertree.network.onnx.result import OnnxResult
from tuckertree.network.onnx.rewriting import rewrite
from tuckertree.network.onnx.runtime import Session
from tuckertree.network.onnx.samples import first_sample, trial_feeds
from tuckertree.network.onnx.surveying import check_onnx_objective, survey_onnx
from tuckertree.network.onnx.writing import check_onnx_output, data_file, written
from tuckertree.network.surgery import apply
from tuckertree.planning import (
    DENSE,
    Budget,
    Inventory,
    NetworkRule,
    Options,
    Plan,
    Ranks,
    TradeOff,
    make_plan,
    survey,
    trade_off,
)
from tuckertree.planning.planner import Choice


def compress_onnx(
    model: str | Path,
    output: str | Path,
    rule: AnyRule,
    *,
    input_size: Sizes = None,
    input_values: Values = None,
    calibration: CalibrationData | None = None,
    objective: str | None = None,
    include: str | Sequence[str] | Choice = ("*",),
    exclude: str | Sequence[str] | Choice = (),
    first: str = "svd",
    round_to: int | None = None,
    methods: Sequence[str] = METHODS,
    overwrite: bool = False,
    progress: bool | None = None,
) -> OnnxResult:
    """Compress an ONNX model; no framework's model is needed.

    Conv, ConvTranspose, Gemm and MatMul nodes with constant weights become chains of such nodes. Every other
    node and tensor is written as it was, and inputs and outputs keep their names and shapes.

    Parameters
    ----------
    model, output
        ONNX files.
    rule
        ``Budget(macs=0.6)``, ``Energy(0.9)``, ``ErrorBound(0.1)``, ``Ranks({...})`` or
        ``Budget(latency="2x", runtime="onnxruntime", threads=2)``: layers and the whole file are timed, and chains
        are written in the forms that were measured. Its batch is that of the file; where that is free, any.
    input_size
        Size of the input without the batch, in the model's own order of axes, where the file leaves it open; for
        several such inputs a mapping by their names. MACs are counted at it.
    input_values
        Values by the names of inputs, or ``(low, high)`` for random ones, where the model is run without
        calibration: by themselves floating-point numbers are normal ones and integers, but for bytes, zeros.
    calibration
        Unlabelled inputs in the form the model takes: a tensor, a data set of tensors, batches, or mappings by the
        names of the inputs. Factors and biases are then fitted to the layers' outputs on them.
    objective
        What a budget makes small: ``moments``, the sum of the layers' squared relative output errors (default with
        calibration); ``sensitivity``, the change of the model's outputs, measured by trying each layer alone
        (slower, and better where layers differ much in what they mean to the outputs); ``weight``, the sum of the
        relative weight errors (default without). A file has no derivatives, so ``outputs`` is not available.
    include, exclude, first, round_to, methods, progress
        As of :func:`tuckertree.compress`; layers have the names of their nodes.
    overwrite
        Whether ``output`` may be replaced.

    Returns
    -------
    OnnxResult
        Once the written file has been checked and run against the original.

    Raises
    ------
    UsageError
        If the size of an input is not known, an option has a value it cannot have, or a budget of latency names a
        runtime that reads no ONNX.
    UnreachableTargetError
        If no layer can be compressed, with the reasons, or the budget cannot be met.
    TuckertreeError
        If a file cannot be read, run or written.
    """
    source, path = Path(model), Path(output)
    timed = rule if isinstance(rule, Budget) and rule.latency is not None else None
    runtime = onnx_runtime_of(timed) if timed else None
    check_onnx_output(path, source, overwrite=overwrite)
    round_to = 1 if round_to is None and not timed else round_to
    options = Options(_patterns(include), _patterns(exclude), first, round_to, methods).for_rule(rule)
    objective = check_onnx_objective(rule, objective, calibrated=calibration is not None)
    clock = Clock()
    file = read_onnx(source)
    file.check_apart(path, data_file(path))
    graph = Graph(file.proto)
    images = None if calibration is None else OnnxCalibration(calibration, graph)
    with progress_bar(progress) as tick:
        example = first_sample(graph, input_size, input_values, images)
        file = inlined(file, example)
        graph = Graph(file.proto)
        found = take_onnx_inventory(file, graph, example)
        options = options.among(found.inventory.layers)
        _refuse_if_all_stay(found.inventory, options)
        skeleton = _skeleton(file, found)
        clock.lap("inventory")
        if isinstance(rule, NetworkRule):
            target = timer = None
            if timed and runtime:
                target = onnx_target(timed, runtime, file, graph, found, skeleton, example)
                inventory, timer = target.measure(found.inventory, options, tick=tick)
                found = replace(found, inventory=inventory)
                clock.lap("times")
            candidates = survey_onnx(
                file, graph, found, skeleton, options, objective, images, timer=timer, tick=tick
            )
            if target is not None:
                plan = target.plan(found.inventory, candidates, options, tick=tick)
            else:
                plan = make_plan(found.inventory, candidates, rule, options)
            plan = replace(plan, rule={**plan.rule, "objective": objective})
        else:
            spectra = survey(skeleton, found.inventory, options, tick=tick)
            plan = make_plan(found.inventory, spectra, rule, options)
        if not plan.compressed:
            raise UnreachableTargetError(nothing_to_compress(plan))
        clock.lap("plan")
        if images is None:
            chains = _chains(skeleton, plan, tick)
            clock.lap("factors")
        else:
            notes: dict[str, str] = {}
            chains = calibrate_onnx(file, graph, found.layers, skeleton, plan, images, notes=notes, tick=tick)
            plan = plan.noted(notes)
            clock.lap("calibration")
        if plan.latency is not None:
            chains = chains_of(run_as_planned(Skeleton(chains), plan), plan)
            plan = count_as_run(plan, found.inventory)
        round_as_stored(found.layers, chains)
        errors, relative_error = _errors(found, skeleton, chains)
        clock.lap("errors")
        smaller = rewrite(graph, found.layers, chains, biases=images is not None)
        size_before = file.size
        with written(path, smaller, file, overwrite=overwrite) as new:
            trials, compared_on = trial_feeds(graph, input_size, input_values, images)
            made_up = images is None and is_made_up(graph, input_values)
            outputs = compare_sessions(Session(source), Session(new), trials, made_up)
            size_after = new.stat().st_size + _size(data_file(new))
        clock.lap("output")
    return OnnxResult(
        path=path,
        plan=plan,
        errors=errors,
        relative_error=relative_error,
        outputs=outputs,
        compared_on=compared_on,
        notes=(*found.inventory.notes, *folded_notes(found.layers, chains)),
        bytes=(size_before, size_after),
        seconds=clock.seconds,
    )


def onnx_inventory(model: str | Path, *, input_size: Sizes = None, input_values: Values = None) -> Inventory:
    """List the layers of an ONNX model and what they cost, by running it once on a random input.

    Raises
    ------
    TuckertreeError
        As :func:`compress_onnx`.
    """
    file = read_onnx(model)
    example = first_sample(Graph(file.proto), input_size, input_values, None)
    file = inlined(file, example)
    return take_onnx_inventory(file, Graph(file.proto), example).inventory


def onnx_trade_off_curve(
    model: str | Path,
    *,
    input_size: Sizes = None,
    input_values: Values = None,
    by: str = "params",
    points: int = 25,
    calibration: CalibrationData | None = None,
    progress: bool | None = None,
) -> tuple[TradeOff, ...]:
    """Predict what every budget would cost an ONNX model; see :func:`tuckertree.compression.objectives.trade_off_curve`.

    With calibration the loss is that of the objective ``moments``.

    Raises
    ------
    TuckertreeError
        As :func:`compress_onnx`.
    """
    file = read_onnx(model)
    graph = Graph(file.proto)
    images = None if calibration is None else OnnxCalibration(calibration, graph)
    with progress_bar(progress) as tick:
        example = first_sample(graph, input_size, input_values, images)
        file = inlined(file, example)
        graph = Graph(file.proto)
        found = take_onnx_inventory(file, graph, example)
        objective = "weight" if images is None else "moments"
        skeleton = _skeleton(file, found)
        candidates = survey_onnx(file, graph, found, skeleton, Options(), objective, images, tick=tick)
    return trade_off(found.inventory, candidates, by=by, points=points)


def _refuse_if_all_stay(inventory: Inventory, options: Options) -> None:
    """Say why nothing can be compressed before a rule says that its target cannot be reached."""
    if not inventory.layers:
        notes = f" ({'; '.join(inventory.notes)})" if inventory.notes else ""
        raise UnreachableTargetError(
            f"nothing to compress: the model has no convolution or matrix product with a constant weight{notes}"
        )
    if all(options.method(layer)[0] == DENSE for layer in inventory.layers):
        raise UnreachableTargetError(nothing_to_compress(make_plan(inventory, {}, Ranks({"*": 1}), options)))


def _skeleton(file: OnnxFile, found: OnnxInventory) -> Skeleton:
    return build_skeleton(file, [layer for layer in found.layers.values() if not layer.layer.skip_reason])


def _chains(skeleton: Skeleton, plan: Plan, tick: ProgressCallback) -> dict[str, Chain]:
    own = Skeleton({layer.name: skeleton.get_submodule(layer.name) for layer in plan.compressed})
    return chains_of(apply(own, plan, tick=tick), plan)


def _errors(
    found: OnnxInventory, skeleton: Skeleton, chains: Mapping[str, Chain]
) -> tuple[dict[str, float], float]:
    layers = [layer for layer in found.inventory.layers if not layer.skip_reason]
    dense = {layer.name: skeleton.get_submodule(layer.name) for layer in layers}
    compressed = Skeleton({**dense, **chains})
    return measure_errors(skeleton, compressed, layers)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _patterns(wanted: str | Sequence[str] | Choice) -> Sequence[str] | Choice:
    return (wanted,) if isinstance(wanted, str) else wanted
