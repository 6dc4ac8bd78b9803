"""Time to decompose whole networks, against the textbook way, in the same run.

The textbook way, as most code does it: every unfolding by QR and SVD in float32, once for the ranks and once
more for the factors. Both work on all convolutions and linear layers of the network at the same energy, with
the same number of threads, in turns; the ranks must agree. Peak memory is that of a process of its own.

    python benchmarks/decompose.py --output docs/results
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
from pathlib import Path
from statistics import median
from typing import Any, cast

import torch
from rich.console import Console
from torch import Tensor, nn

import tuckertree
from merging import merged, write_report
from tuckertree.core.layers import get_method
from tuckertree.io.report import FittingTable
from tuckertree.measure import environment
from tuckertree.network.surgery import apply
from tuckertree.planning import Energy, Inventory, Options, make_plan, survey, take_inventory

NETWORKS = ("torchvision:resnet18", "torchvision:resnet50", "torchvision:vgg16_bn")
Ranks = dict[str, tuple[int, ...]]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--networks", nargs="+", default=NETWORKS)
    parser.add_argument("--energy", type=float, default=0.7)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, help="folder for decompose.json and decompose.md")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    results = []
    for name in options.networks:
        results.append(compare(name, options.energy, options.repeats, options.seed))
        results[-1]["peak_mib"] = peak_memory(name, options.energy, options.seed, options.threads)
    show(results)
    if options.output:
        write(results, options)


def write(results: list[dict[str, Any]], options: argparse.Namespace) -> None:
    """Add results to those in the folder, each in the place of an older one of its network."""
    report = {
        "energy": options.energy,
        "seed": options.seed,
        "environment": environment(),
        "networks": merged(options.output / "decompose.json", "networks", results, ("network",)),
    }
    write_report(options.output, "decompose", report, markdown(report))


def compare(name: str, energy: float, repeats: int, seed: int) -> dict[str, Any]:
    """Seconds of both ways, in turns, and the layers where their ranks differ."""
    model, inventory = prepare(name, seed)
    ours, textbook, differ = [], [], {}
    for _ in range(repeats):
        start = time.perf_counter()
        ranks = with_tuckertree(model, inventory, energy)
        middle = time.perf_counter()
        reference = by_the_textbook(model, inventory, energy)
        textbook.append(time.perf_counter() - middle)
        ours.append(middle - start)
        differ = {
            layer: (ranks[layer], reference[layer]) for layer in ranks if ranks[layer] != reference[layer]
        }
    return {
        "network": name,
        "layers": len(inventory.layers),
        "tuckertree_s": median(ours),
        "textbook_s": median(textbook),
        "runs_s": {"tuckertree": ours, "textbook": textbook},
        "ratio": median(b / a for a, b in zip(ours, textbook, strict=True)),
        "different_ranks": differ,
    }


def prepare(name: str, seed: int) -> tuple[nn.Module, Inventory]:
    torch.manual_seed(seed)
    model = tuckertree.build(name)
    return model, take_inventory(model, torch.zeros(1, 3, 224, 224))


def with_tuckertree(model: nn.Module, inventory: Inventory, energy: float) -> Ranks:
    """Spectra, ranks, factors and the compressed model."""
    options = Options()
    spectra = survey(model, inventory, options)
    plan = make_plan(inventory, spectra, Energy(energy), options)
    apply(model, plan, spectra=spectra)
    return {layer.name: layer.ranks for layer in plan.compressed}


def by_the_textbook(model: nn.Module, inventory: Inventory, energy: float) -> Ranks:
    """Ranks, then factors, each from a QR decomposition and an SVD of every unfolding, in float32."""
    found = {}
    for layer in inventory.layers:
        method = Options().method(layer)[0]
        cuts = get_method(method).cuts(layer.spec)
        weight = cast("Tensor", model.get_submodule(layer.name).weight).detach()
        row = layer.spec.kernel(weight)[0].movedim(0, -1)
        ranks = tuple(textbook_rank(unfold(row, cut), energy) for cut in cuts)
        textbook_factors(row, cuts, ranks)
        found[layer.name] = ranks
    return found


def textbook_rank(matrix: Tensor, energy: float) -> int:
    squared = textbook_svd(matrix)[1].square()
    return int((squared.cumsum(0) / squared.sum() <= energy).sum()) + 1


def textbook_factors(row: Tensor, cuts: tuple[int, ...], ranks: tuple[int, ...]) -> list[Tensor]:
    u3 = textbook_svd(unfold(row, cuts[-1]).T)[0][:, : ranks[-1]]
    if len(cuts) == 1:
        return [unfold(row, cuts[0]) @ u3, u3]
    u1 = textbook_svd(unfold(row, cuts[0]))[0][:, : ranks[0]]
    core = torch.tensordot(torch.tensordot(u1.T, row, dims=1), u3, dims=1)
    if len(cuts) == 2:
        return [u1, core, u3]
    projected = unfold(core, 1)
    g1 = textbook_svd(projected)[0][:, : ranks[1]]
    return [u1, g1, g1.T @ projected, u3]


def textbook_svd(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Left singular vectors and singular values by QR of the longer side and SVD of the small factor."""
    if matrix.shape[0] < matrix.shape[1]:
        right = torch.linalg.qr(matrix.T)[1]
        u, s, _ = torch.linalg.svd(right.T, full_matrices=False)
        return u, s
    q, small = torch.linalg.qr(matrix)
    u, s, _ = torch.linalg.svd(small, full_matrices=False)
    return q @ u, s


def unfold(row: Tensor, bond: int) -> Tensor:
    return row.flatten(0, bond).flatten(1)


def peak_memory(name: str, energy: float, seed: int, threads: int) -> float | None:
    """MiB that a decomposition needs at its peak above what the process held with the model, or None."""
    if not Path("/proc/self/clear_refs").exists():
        return None
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_peak_above_model, (name, energy, seed, threads))


def _peak_above_model(name: str, energy: float, seed: int, threads: int) -> float:
    torch.set_num_threads(threads)
    model, inventory = prepare(name, seed)
    # One small eigenproblem, so that the libraries' own buffers do not count.
    torch.linalg.eigh(torch.eye(64, dtype=torch.float64))
    Path("/proc/self/clear_refs").write_text("5")  # reset the peak to what is held now
    before = _status_mib("VmRSS")
    with_tuckertree(model, inventory, energy)
    return _status_mib("VmHWM") - before


def _status_mib(field: str) -> float:
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(field))


COLUMNS = (
    "network",
    ">layers",
    ">runs",
    ">tuckertree s",
    ">textbook s",
    ">ratio",
    ">ranks that differ",
    ">peak MiB",
)


def cells(result: dict[str, Any]) -> tuple[str, ...]:
    return (
        result["network"],
        str(result["layers"]),
        str(len(result["runs_s"]["textbook"])),
        f"{result['tuckertree_s']:.2f}",
        f"{result['textbook_s']:.2f}",
        f"{result['ratio']:.1f}x",
        str(len(result["different_ranks"])),
        "" if result["peak_mib"] is None else f"{result['peak_mib']:.0f}",
    )


def show(results: list[dict[str, Any]]) -> None:
    Console(width=120).print(FittingTable(COLUMNS, [cells(result) for result in results]))


def markdown(report: dict[str, Any]) -> str:
    machine = report["environment"]
    lines = [
        "# Time to decompose",
        "",
        f"Spectra, ranks at energy {report['energy']:g}, factors and the compressed model, against QR and SVD of every",
        "unfolding in float32, ranks and factors apart, on random weights. Medians of runs in turns; peak memory is",
        "above the process with the model. Measured by `python benchmarks/decompose.py --output docs/results`; seed",
        f"{report['seed']}, tuckertree {machine['tuckertree']}, torch {machine['torch']},",
        f"{machine['processor']}, {machine['threads']} threads, shared with others: read the ratio.",
        "",
        "| " + " | ".join(column.lstrip(">") for column in COLUMNS) + " |",
        "|---|---|---|---|---|---|---|---|",
        *("| " + " | ".join(cells(result)) + " |" for result in report["networks"]),
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
