"""Time saved against work saved: whole networks on the processor, as chains and contracted, against dense.

Torchvision's architectures with random weights; every convolution but the first and the 1x1 factored by HT-2 with all
ranks at a share of the channels, down to multiples of 16, and the linear layers dense or at the same share of their
narrower side. Dense, four-layer and contracted networks run in turns.

    python benchmarks/latency.py --output docs/results
"""

from __future__ import annotations

import argparse
from collections import Counter
from itertools import product
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import nn

import tuckertree
from merging import merged, write_report
from tuckertree._base.progress import progress_bar
from tuckertree.core.layers import factorize
from tuckertree.io.report import FittingTable, contraction_table
from tuckertree.measure import environment
from tuckertree.network.surgery import replace_layers
from tuckertree.runtimes import contract, get_runtime
from tuckertree.tools.bench import bench, of_model

NETWORKS = ("torchvision:resnet18", "torchvision:vgg16_bn")
LAYERS = {"convolutions": "", "all": ", linear layers too"}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--networks", nargs="+", default=NETWORKS)
    parser.add_argument("--shares", nargs="+", type=int, default=(2, 4), help="ranks = channels / share")
    parser.add_argument("--layers", nargs="+", choices=LAYERS, default=tuple(LAYERS))
    parser.add_argument("--runtimes", nargs="+", default=("onnxruntime",))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, help="folder for latency.json and latency.md")
    options = parser.parse_args()
    results = []
    for name in options.networks:
        for layers, share, runtime in product(options.layers, options.shares, options.runtimes):
            results.append(compare(name, layers, share, runtime, options))
            show(results[-1:])
            if options.output:
                write(results, options)
    show(results)


def compare(
    name: str, layers: str, share: int, runtime_name: str, options: argparse.Namespace
) -> dict[str, Any]:
    """Time the dense network, its chains and their contraction in one process."""
    runtime = get_runtime(runtime_name, threads=options.threads)
    torch.manual_seed(options.seed)
    x = torch.randn(options.batch, 3, 224, 224)
    dense = tuckertree.build(name).eval()
    chains = replace_layers(dense, factored(dense, share, linear=layers == "all"))
    with progress_bar() as tick:
        contraction = contract(chains, runtime, x, tick=tick)
    Console(stderr=True, width=160).print(contraction_table(contraction.layers))
    models = {"dense": dense, "four layers": chains, "contracted": contraction.model}
    subjects = [of_model(label, model, x) for label, model in models.items()]
    rows = bench(subjects, [runtime], repeats=options.rounds, memory=False)
    return {
        "network": name,
        "ranks": f"channels/{share}{LAYERS[layers]}",
        "runtime": f"{runtime.name} {runtime.version.partition('-')[0]}",
        "threads": runtime.threads,
        "batch": options.batch,
        "forms": {layer.name: layer.variant.name for layer in contraction.layers},
        "stages": {layer.name: len(layer.variant.stages) for layer in contraction.layers},
        "rows": [
            {
                "form": row.name,
                "macs": row.macs,
                "ms": 1e3 * row.seconds.median,
                "ms_quartiles": [1e3 * row.seconds.low, 1e3 * row.seconds.high],
                "macs_less": 1 / row.mac_ratio,
                "faster": 1 / row.time_ratio.median,
                "faster_quartiles": [1 / row.time_ratio.high, 1 / row.time_ratio.low],
            }
            for row in rows
        ],
    }


def factored(model: nn.Module, share: int, *, linear: bool) -> dict[str, nn.Module]:
    """Chains by layer name."""

    def rank(channels: int) -> int:
        return max(16, channels // share // 16 * 16)

    found: dict[str, nn.Module] = {}
    for name, layer in model.named_modules():
        if isinstance(layer, nn.Conv2d) and layer.in_channels > 3 and max(layer.kernel_size) > 1:
            first, last = rank(layer.in_channels), rank(layer.out_channels)
            found[name] = factorize(layer, "ht2", (first, max(first, last), last))
        elif isinstance(layer, nn.Linear) and linear:
            found[name] = factorize(layer, "svd", (rank(min(layer.weight.shape)),))
    return found


def write(results: list[dict[str, Any]], options: argparse.Namespace) -> None:
    """Add results to those in the folder, each in the place of an older one of the same kind."""
    kind = ("network", "ranks", "runtime", "threads", "batch")
    report = {
        "seed": options.seed,
        "rounds": options.rounds,
        "environment": environment(),
        "results": merged(options.output / "latency.json", "results", results, kind),
    }
    write_report(options.output, "latency", report, markdown(report))


COUNTS = {4: "four", 3: "three", 2: "two", 1: "dense"}
COLUMNS = (
    "network",
    "ranks",
    "runtime",
    "form",
    ">ms",
    ">MACs less",
    ">faster",
    ">quartiles",
    ">faster / MACs less",
    "layers by form",
)


def cells(result: dict[str, Any]) -> list[tuple[str, ...]]:
    """Lines of the table; the share in the last column is of the MACs that the four-layer chain saves."""
    goal = result["rows"][1]["macs_less"]
    return [
        (
            result["network"],
            result["ranks"] if row["form"] != "dense" else "",
            f"{result['runtime']}, batch {result['batch']}, {result['threads']} threads",
            row["form"],
            f"{row['ms']:.1f}",
            f"{row['macs_less']:.2f}x",
            f"{row['faster']:.2f}x",
            "-".join(f"{value:.2f}" for value in row["faster_quartiles"]),
            "" if row["form"] == "dense" else f"{row['faster'] / goal:.2f}",
            by_form(result["stages"]) if row["form"] == "contracted" else "",
        )
        for row in result["rows"]
    ]


def by_form(stages: dict[str, int]) -> str:
    """How many chains became so many layers: ``9 two, 8 dense``."""
    found = Counter(COUNTS[number] for number in stages.values())
    return ", ".join(f"{found[name]} {name}" for name in COUNTS.values() if found[name])


def show(results: list[dict[str, Any]]) -> None:
    Console(width=160).print(FittingTable(COLUMNS, [line for result in results for line in cells(result)]))


def markdown(report: dict[str, Any]) -> str:
    machine = report["environment"]
    lines = [
        "# Time saved against work saved",
        "",
        "Torchvision's architectures with random weights; every convolution but the first and the 1x1 in HT-2 form,",
        "all ranks at a share of the channels in multiples of 16. Four layers: the chain as it is; contracted: each",
        f"chain in the exact form measured fastest. Medians of {report['rounds']} rounds in turns; ratios of the least in groups of",
        "five. Faster / MACs less: times faster over how many times less MACs the four layers have. Layers by form: how",
        "many chains became four, three or two layers; dense are those where no form was faster by more than noise, so",
        "that no layer is slower than it was by more than that. Linear layers stay as they are unless the ranks name them:",
        "VGG-16 reads the 495 MB of theirs in every run, a time that no rank of a convolution shortens. Measured by",
        f"`python benchmarks/latency.py --output docs/results`; seed {report['seed']}, tuckertree {machine['tuckertree']}, "
        f"torch {machine['torch']},",
        f"{machine['processor']}, shared with others: read the ratios.",
        "",
        "| " + " | ".join(column.lstrip(">") for column in COLUMNS) + " |",
        "|" + "---|" * len(COLUMNS),
        *("| " + " | ".join(line) + " |" for result in report["results"] for line in cells(result)),
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
