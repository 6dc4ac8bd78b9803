"""compress(): a trained network in, a smaller one out, with the plan that made it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict, Unpack

from torch import nn

from tuckertree._base.errors import UsageError
from tuckertree._base.progress import progress_bar, say
from tuckertree.calibration import CalibrationData, Length, check_tunable
from tuckertree.compression.accuracy.search import keep_accuracy
from tuckertree.compression.accuracy.trials import LabelledData
from tuckertree.compression.choosing import Choosing
from tuckertree.compression.making import make_network, make_result, nearest
from tuckertree.compression.network import Network
from tuckertree.compression.objectives import AnyRule, Objective
from tuckertree.compression.result import CompressionResult
from tuckertree.measure import ExampleInputs
from tuckertree.planning import Budget, Plan
from tuckertree.planning.channels import DEFAULT_METHODS
from tuckertree.planning.options import Choice


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
    methods: Sequence[str] = DEFAULT_METHODS,
    calibration: CalibrationData | None = None,
    objective: str | Objective | None = None,
    tune: str | int | None = None,
    data: LabelledData | None = None,
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
        ``Budget(latency="2x", runtime="onnxruntime", threads=2)``, which times layers and networks, with
        ``precision="fp32,int8"`` in 8 bits too;
        ``energy=0.9`` means the first. ``Budget(max_drop=1.0)`` and ``Budget(agreement=0.99)`` ask for the network of the
        fewest MACs (or ``cheapest="params"``, ``"latency"``) that keeps an accuracy: it is searched for, each try
        calibrated, and proved on images that took no part. Or a :class:`~tuckertree.Plan`, from :func:`plan` and perhaps
        edited: it is carried out, its costs counted anew.
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
        Tucker-2, the spatial SVD, the SVD, ``depthwise`` (pointwise, depthwise, pointwise) and, with calibration,
        ``channels``: fewer hidden channels between layers. Other rules use ``ht2`` and ``svd``, which must be among them.
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
    tune
        With calibration: how long to tune the whole network afterwards against the original on the same images
        (:func:`tuckertree.tune`): ``"5min"``, ``"90s"``, or a number of steps. The factors are then not fitted to the
        last fifth of the images, by which the best state is chosen.
    data
        For ``Budget(max_drop=...)``, labelled images other than those of the calibration: a data set of pairs, or
        batches ``(images [N, ...], labels [N])`` that can be iterated again and again. One half serves the search, the
        other the proof. For ``Budget(agreement=...)`` they need no labels; without them half of the calibration images
        serve the two, and the fit has the other half.
    progress
        Draw a progress bar on stderr; by default where stderr is a terminal. Where it is none, a search for an accuracy
        says a line for each step, unless this is False.

    Returns
    -------
    CompressionResult
        Layers that would not get smaller stay dense, with the reason in the plan.

    Raises
    ------
    UsageError
        If the rule is missing or given twice, or an option has a value it cannot have.
    UnreachableTargetError
        If no layer can be compressed, or a budget cannot be met; the message says why, or what can. Of an accuracy it
        is an :class:`~tuckertree.compression.AccuracyNotKeptError`, which holds the nearest network.
    TuckertreeError
        If the model is no torch module with layers and weights, cannot be copied, does not run on the inputs, or a
        weight holds NaN or infinite values.

    Examples
    --------
    >>> import torch, tuckertree as tt
    >>> from tuckertree.tools.data import batches, open_calibration, open_images
    >>> from tuckertree.tools.models import resolve
    >>> model = tt.build("demo")  # a trained ResNet-20
    >>> images = open_calibration("demo", resolve("demo").preprocessing, limit=64)
    >>> result = tt.compress(model, torch.zeros(1, 3, 32, 32), tt.Budget(macs=0.6), calibration=images)
    >>> result.plan.macs[1] <= 0.6 * result.plan.macs[0]
    True
    >>> test = open_images("demo", resolve("demo").preprocessing, limit=100)
    >>> tt.evaluate(result.model, batches(test, batch_size=50)).top1 > 80
    True

    As cheap as can be, but no more than five points worse:

    >>> data = open_images("demo", resolve("demo").preprocessing, limit=200)
    >>> rule = tt.Budget(max_drop=5.0)
    >>> options = {"include": "layer3.*", "data": data, "progress": False}
    >>> result = tt.compress(model, torch.zeros(1, 3, 32, 32), rule, calibration=images, **options)
    >>> result.accuracy.held, result.accuracy.loss.lost <= 5, result.accuracy.loss.images
    (True, True, 100)
    """
    chosen = Choosing.of(
        model,
        example_inputs,
        rule,
        energy=energy,
        include=include,
        exclude=exclude,
        first=first,
        round_to=round_to,
        methods=methods,
        calibration=calibration,
        objective=objective,
        data=data,
    )
    length = None if tune is None else Length.of(tune)
    network, images = chosen.network, chosen.images
    if length is not None and images is None:
        raise UsageError("tuning needs images: give calibration too")
    with progress_bar(progress) as tick, network.opened(chosen.some_images):
        if length is not None and images is not None:
            check_tunable(network.module, images)
        if chosen.trial is not None:
            return keep_accuracy(chosen, length, tick, _silent if progress is False else say)
        planned = chosen.planned(tick)
        networks = [make_network(chosen, each.plan, each.spectra, length, tick) for each in planned]
        return make_result(chosen, nearest(chosen, networks), planned[0].inventory, length, tick)


def _silent(line: str) -> None:
    """Say nothing."""


class PlanOptions(TypedDict, total=False):
    """Options of :func:`plan`, which are those of :func:`compress`."""

    energy: float | None
    include: str | Sequence[str] | Choice
    exclude: str | Sequence[str] | Choice
    first: str
    round_to: int | None
    methods: Sequence[str]
    calibration: CalibrationData | None
    objective: str | Objective | None


def plan(
    model: nn.Module | str | Path | Network,
    example_inputs: ExampleInputs | None = None,
    rule: AnyRule | None = None,
    *,
    progress: bool | None = None,
    **options: Unpack[PlanOptions],
) -> Plan:
    """Choose methods and ranks as :func:`compress` does, and do nothing else.

    The plan can be read, edited, saved (``plan.dumps()``), and applied: ``tuckertree.apply(model, plan)``, or with images
    ``tuckertree.calibrate(model, plan, images)``.

    Parameters
    ----------
    model, example_inputs, rule, progress, options
        As of :func:`compress`.

    Raises
    ------
    TuckertreeError
        As :func:`compress`.

    Examples
    --------
    >>> import torch, tuckertree as tt
    >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 32, 3), torch.nn.ReLU(), torch.nn.Conv2d(32, 64, 3))
    >>> plan = tt.plan(model, torch.zeros(1, 3, 16, 16), tt.Budget(params=0.5))
    >>> [(layer.name, layer.kind, layer.kernel) for layer in plan.layers]
    [('0', 'conv2d', (32, 3, 3, 3)), ('2', 'conv2d', (64, 32, 3, 3))]
    >>> plan.parameters[1] <= 0.5 * plan.parameters[0]
    True
    """
    if isinstance(rule, Budget) and rule.keeps_accuracy:
        raise UsageError(
            "a budget of accuracy is found by trying networks: give it to compress, which has the plan"
        )
    if isinstance(rule, Budget) and len(rule.precision) > 1:
        raise UsageError(
            "which precision is nearest to the original is found by making networks: give the budget to compress, or one "
            "precision to plan"
        )
    chosen = Choosing.of(model, example_inputs, rule, **options)
    with progress_bar(progress) as tick, chosen.network.opened(chosen.images):
        return chosen.planned(tick)[0].plan
