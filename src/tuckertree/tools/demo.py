"""The demo: the packaged network, at several energies and budgets, on the packaged images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from time import perf_counter

import torch
from torch import Tensor, nn

from tuckertree._base.progress import progress_bar, say
from tuckertree.compression import compress
from tuckertree.io import check_output, load_folder
from tuckertree.io.report import FittingTable, short
from tuckertree.measure import count_macs, count_parameters, evaluate, run, time_in_turns
from tuckertree.measure.latency import least_of_each
from tuckertree.planning import Budget, Energy
from tuckertree.runtimes import get_runtime
from tuckertree.tools.data import batches, open_images
from tuckertree.tools.models import build, resolve

_IMAGES, _CALIBRATION, _ROUNDS, _LEAST_OF = 32, 192, 10, 5
_ONNX = ("onnx", "onnxscript", "onnxruntime")


@dataclass(frozen=True)
class DemoRow:
    """One network of the demo.

    Attributes
    ----------
    name
        ``dense``, the energy or the budget.
    error
        Relative error of all weights together.
    top1
        In percent, on the packaged test images.
    torch_ms, onnxruntime_ms
        Milliseconds of 32 images in PyTorch, channels last, and in ONNX Runtime, None where that is not installed: the
        least in groups of five rounds, all networks in turns, median over the groups.
    """

    name: str
    parameters: int
    macs: int
    error: float
    top1: float
    torch_ms: float
    onnxruntime_ms: float | None


def run_demo(
    output: Path, *, energies: Sequence[float], params: Sequence[float], overwrite: bool = False
) -> list[DemoRow]:
    """Compress, save, load and measure; what is measured is what was loaded again.

    Parameters
    ----------
    output
        Folder in which each network gets a folder of its own, ``energy-0.9``.
    energies
        Energies to compress at, as the paper does.
    params
        Budgets, shares of the parameters, to compress to with packaged unlabelled images.

    Raises
    ------
    TuckertreeError
        If the output exists and may not be replaced, or cannot be written.
    """
    runs: list[tuple[str, Energy | Budget]] = [(f"energy {energy:g}", Energy(energy)) for energy in energies]
    runs += [(f"params {share:g}", Budget(params=share)) for share in params]
    folders = {name: output / name.replace(" ", "-") for name, _ in runs}
    for folder in folders.values():
        check_output(folder, overwrite=overwrite)
    known, dense = resolve("demo"), build("demo")
    example = known.example_inputs()
    images = open_images("demo", known.preprocessing, split="test")
    unlabelled = open_images("demo", known.preprocessing, split="train", limit=_CALIBRATION)
    models, errors = {"dense": dense}, {"dense": 0.0}
    for name, rule in runs:
        start = perf_counter()
        result = compress(dense, example, rule, calibration=unlabelled if isinstance(rule, Budget) else None)
        result.save(folders[name], overwrite=overwrite)
        models[name], errors[name] = load_folder(folders[name], build)[0], result.relative_error
        say(f"{name}: compressed and saved, {perf_counter() - start:.1f} s")
    top1 = {}
    with progress_bar() as tick:
        for name, model in models.items():
            top1[name] = evaluate(model, batches(images, 250), images=len(images), tick=tick).top1
            say(f"{name}: {top1[name]:.1f} % of {len(images)} test images")
    times = _milliseconds(models, example.expand(_IMAGES, -1, -1, -1).contiguous())
    return [
        DemoRow(
            name,
            count_parameters(model),
            count_macs(model, example),
            errors[name],
            top1[name],
            *(times[runtime][number] if runtime in times else None for runtime in ("torch", "onnxruntime")),  # type: ignore[arg-type]
        )
        for number, (name, model) in enumerate(models.items())
    ]


def _milliseconds(models: Mapping[str, nn.Module], inputs: Tensor) -> dict[str, list[float]]:
    """Times of all networks, by runtime."""
    runs = {}
    if all(map(find_spec, _ONNX)):
        say("timing in ONNX Runtime")
        runtime = get_runtime("onnxruntime")
        loaded = runtime.load_branches(list(models.values()), [inputs])
        runs["onnxruntime"] = [runnable.bind([inputs]) for runnable in loaded]
    say("timing in PyTorch")
    last = inputs.to(memory_format=torch.channels_last)
    runs["torch"] = [
        partial(run, model.to(memory_format=torch.channels_last), last) for model in models.values()
    ]
    return {
        name: [
            1e3 * median(least_of_each(seconds, _LEAST_OF))
            for seconds in time_in_turns(each, repeats=_ROUNDS)
        ]
        for name, each in runs.items()
    }


def demo_table(rows: Sequence[DemoRow]) -> FittingTable:
    """Table of the demo, every network beside the dense one."""
    dense = rows[0]
    columns = [
        "ResNet-20",
        ">parameters",
        ">fewer",
        ">MACs",
        ">fewer\nMACs",
        ">weight\nerror",
        ">top-1\n%",
        ">PyTorch\nms",
        ">times\nfaster",
    ]
    cells = [
        [
            row.name,
            short(row.parameters),
            f"{dense.parameters / row.parameters:.2f}x",
            short(row.macs),
            f"{dense.macs / row.macs:.2f}x",
            f"{row.error:.3f}",
            f"{row.top1:.1f}",
            f"{row.torch_ms:.1f}",
            f"{dense.torch_ms / row.torch_ms:.2f}x",
        ]
        for row in rows
    ]
    if dense.onnxruntime_ms is not None:
        columns += [">ONNX R.\nms", ">faster\nthere"]
        for row, line in zip(rows, cells, strict=True):
            assert row.onnxruntime_ms is not None
            line += [f"{row.onnxruntime_ms:.1f}", f"{dense.onnxruntime_ms / row.onnxruntime_ms:.2f}x"]
    return FittingTable(columns, cells, ("MACs", "parameters", "weight\nerror"))
