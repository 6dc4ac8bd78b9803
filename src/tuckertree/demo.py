"""The demo: the packaged network, at several energies and budgets, on the packaged images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table

from tuckertree.compression import compress
from tuckertree.data import batches, open_images
from tuckertree.formats import check_output, load_folder
from tuckertree.measure import compare_latency, count_macs, count_parameters, evaluate
from tuckertree.models import build, resolve
from tuckertree.planning import Budget, Energy
from tuckertree.progress import progress_bar
from tuckertree.report import short, table


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
    milliseconds, low, high
        Median time of a batch of 64 and its quartiles, all networks timed in turns.
    """

    name: str
    parameters: int
    macs: int
    error: float
    top1: float
    milliseconds: float
    low: float
    high: float


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
        Budgets, shares of the parameters, to compress to with the packaged unlabelled images.

    Raises
    ------
    TuckertreeError
        If the output exists and may not be replaced, or cannot be written.
    """
    runs: list[tuple[str, Energy | Budget]] = [(f"energy {energy:g}", Energy(energy)) for energy in energies]
    runs += [(f"params {share:g}, images", Budget(params=share)) for share in params]
    folders = {name: output / name.removesuffix(", images").replace(" ", "-") for name, _ in runs}
    for folder in folders.values():
        check_output(folder, overwrite=overwrite)
    known, dense = resolve("demo"), build("demo")
    example = known.example_inputs()
    images = open_images("demo", known.preprocessing, split="test")
    unlabelled = open_images("demo", known.preprocessing, split="train")
    models, errors = {"dense": dense}, {"dense": 0.0}
    for name, rule in runs:
        result = compress(dense, example, rule, calibration=unlabelled if isinstance(rule, Budget) else None)
        result.save(folders[name], overwrite=overwrite)
        models[name], errors[name] = load_folder(folders[name], build)[0], result.relative_error
    with progress_bar() as tick:
        top1 = {
            name: evaluate(model, batches(images, 250), images=len(images), tick=tick).top1
            for name, model in models.items()
        }
    times = compare_latency(models, example.expand(64, -1, -1, -1).contiguous())
    return [
        DemoRow(
            name=name,
            parameters=count_parameters(model),
            macs=count_macs(model, example),
            error=errors[name],
            top1=top1[name],
            milliseconds=1000 * times[name].median,
            low=1000 * times[name].low,
            high=1000 * times[name].high,
        )
        for name, model in models.items()
    ]


def demo_table(rows: Sequence[DemoRow]) -> Table:
    """Table of the demo, every network beside the dense one."""
    dense = rows[0]
    columns = (
        "ResNet-20, CIFAR-10",
        ">parameters",
        ">fewer",
        ">MACs",
        ">fewer",
        ">weight error",
        ">top-1 %",
        ">ms/64 images",
        ">quartiles",
        ">faster",
    )
    cells = [
        (
            row.name,
            short(row.parameters),
            f"{dense.parameters / row.parameters:.2f}x",
            short(row.macs),
            f"{dense.macs / row.macs:.2f}x",
            f"{row.error:.3f}",
            f"{row.top1:.1f}",
            f"{row.milliseconds:.1f}",
            f"{row.low:.1f}-{row.high:.1f}",
            f"{dense.milliseconds / row.milliseconds:.2f}x",
        )
        for row in rows
    ]
    return table(columns, cells)
