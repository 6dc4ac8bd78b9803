"""What a budget makes small in an ONNX model: the losses of all layers' candidates."""

from __future__ import annotations

from tuckertree._base.errors import UsageError
from tuckertree._base.progress import ProgressCallback, no_progress
from tuckertree.calibration import Calibration
from tuckertree.compression.objectives import OBJECTIVES, AnyRule, find_objective
from tuckertree.network.onnx.calibrating import onnx_metrics, onnx_sensitivity
from tuckertree.network.onnx.files import OnnxFile
from tuckertree.network.onnx.graph import Graph
from tuckertree.network.onnx.layers import OnnxInventory, Skeleton
from tuckertree.planning import DENSE, Candidates, Options, Timer, survey_candidates


def check_onnx_objective(rule: AnyRule, objective: str | None, *, calibrated: bool) -> str:
    """The objective that holds: the one asked for, or the default.

    Raises
    ------
    UsageError
        If it is unknown, not available for ONNX, does not belong to the rule, or needs images.
    """
    if objective is None and calibrated:
        return "moments"
    if objective is not None and objective not in OBJECTIVES:
        raise UsageError(f"unknown objective {objective!r}; for ONNX models: moments, sensitivity, weight")
    if objective == "outputs":
        raise UsageError(
            "objective 'outputs' needs the network in torch (an ONNX file has no derivatives); "
            "use moments, the default with calibration images, sensitivity or weight"
        )
    return find_objective(objective, rule, calibrated=calibrated).name


def survey_onnx(
    file: OnnxFile,
    graph: Graph,
    found: OnnxInventory,
    skeleton: Skeleton,
    options: Options,
    objective: str,
    images: Calibration | None,
    *,
    timer: Timer | None = None,
    tick: ProgressCallback = no_progress,
) -> dict[str, Candidates]:
    """Candidates of all layers with their losses in an objective, by name.

    A ``timer`` is for a budget of latency.

    Raises
    ------
    TuckertreeError
        If a weight or an activation is not finite, or the images cannot be used.
    """
    if images is None or objective == "weight":
        return survey_candidates(skeleton, found.inventory, options, timer=timer, tick=tick)
    chosen = [layer for layer in found.layers.values() if options.method(layer.layer)[0] != DENSE]
    metrics = onnx_metrics(file, graph, chosen, images, tick=tick)
    candidates = survey_candidates(
        skeleton,
        found.inventory,
        options,
        metric=lambda layer, kernel: metrics[layer.name].of(kernel),
        timer=timer,
        tick=tick,
    )
    if objective == "moments":
        return candidates
    return onnx_sensitivity(file, graph, found.layers, skeleton, candidates, metrics, images, tick=tick)
