"""When the full hierarchy is worth it: HT-2 beside Tucker-2, spatial SVD, SVD and CP at equal parameters and at equal time.

    python benchmarks/hierarchy.py ResNet-20 ResNet-56 VGG-19-BN GoogLeNet --data DATA --output docs/results
    python benchmarks/hierarchy.py --draw --output docs/results

For every layer with two spatial modes and each method the least error, as the network's outputs see it (objective
`outputs`, from images), among all ranks whose layer has at most a share of the dense one's parameters, or takes at
most a share of its time. Then all these layers together: ranks where they do the most good, each method alone.
A network's rows take the place of its older ones. Time on a quiet machine.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from merging import Row, merged, write_report
from svg import Panel, picture
from trained import NETWORKS, open_network
from tuckertree._base.progress import progress_bar
from tuckertree.calibration import Calibration, collect_metrics
from tuckertree.core.layers import weight_of
from tuckertree.latency.time_model import RuntimeBenchmark, TimeModel
from tuckertree.measure import environment
from tuckertree.planning import Candidates, Layer, layer_candidates, take_inventory
from tuckertree.planning.knapsack import Front, solve
from tuckertree.runtimes import get_runtime

COLOURS = {
    "ht2": "#c2185b",
    "tucker2": "#1565c0",
    "spatial": "#2e7d32",
    "svd": "#8d6e63",
    "cp": "#ef6c00",
    "depthwise": "#00838f",
}
SHARES = {"parameters": (1 / 2, 1 / 4, 1 / 8, 1 / 16), "time": (3 / 4, 1 / 2, 1 / 3, 1 / 4)}
CLOSE = 1.01
"""Errors within this factor of the least count as the least."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("networks", nargs="*", help=f"of {', '.join(NETWORKS)}; ResNet-20 by default")
    parser.add_argument("--data", type=Path, nargs="+", default=[], help="folders that are looked in")
    parser.add_argument("--methods", nargs="+", default=list(COLOURS), choices=list(COLOURS))
    parser.add_argument("--images", type=int, default=256, help="at most so many")
    parser.add_argument("--threads", type=int, default=1, help="of the runtime")
    parser.add_argument("--draw", action="store_true", help="measure nothing, write page and picture anew")
    parser.add_argument("--output", type=Path, help="folder for hierarchy.json, .md and .svg")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = [] if options.draw else [measured(name, options) for name in options.networks or ["ResNet-20"]]
    if not options.output:
        print(markdown({"environment": environment(), "networks": rows}))
        return
    path = options.output / "hierarchy.json"
    known = json.loads(path.read_text(encoding="utf-8"))["environment"] if options.draw else environment()
    report = {"environment": known, "networks": merged(path, "networks", rows, ("network",))}
    options.output.mkdir(parents=True, exist_ok=True)
    write_report(options.output, "hierarchy", report, markdown(report))
    (options.output / "hierarchy.svg").write_text(drawn(report), encoding="utf-8")
    print(markdown(report))


def measured(name: str, options: argparse.Namespace) -> Row:
    """A network: the layers' errors by method and share, and those of all layers together."""
    trained = open_network(name, options.data, limit=100)
    images = Calibration(trained.folds[0].calibration[: options.images], example=trained.example)
    layers = [
        layer
        for layer in take_inventory(trained.model, trained.example).layers
        if len(layer.spec.nontrivial_modes) == 2 and layer.spec.groups == 1
    ]
    runtime = get_runtime("onnxruntime", threads=options.threads)
    timer = TimeModel(RuntimeBenchmark(runtime, torch.float32), methods=options.methods, tolerance=0)
    with progress_bar() as tick:
        timer.measure(layers, tick=tick)
        metrics = collect_metrics(trained.model, layers, images, gradients=True, tick=tick)
        found: dict[str, dict[str, list[Candidates]]] = {by: {} for by in SHARES}
        seconds = {}
        for method in options.methods:
            started = time.process_time()
            for number, layer in enumerate(layers):
                weight = weight_of(trained.model.get_submodule(layer.name))
                kernel = metrics[layer.name].of(layer.spec.kernel(weight))
                for by, used in (("parameters", None), ("time", timer)):
                    small = layer_candidates(layer, kernel, round_to=None, methods=(method,), timer=used)
                    found[by].setdefault(method, []).append(small.weighted(small.spectra.squared_norm))
                tick(f"candidates of {method}", number + 1, len(layers))
            seconds[method] = round(time.process_time() - started, 1)
    return {
        "network": name,
        "images": len(images),
        "threads": options.threads,
        "seconds": seconds,
        "layers": [
            {"layer": layer.name, "shape": list(layer.spec.nontrivial_shape)}
            | {
                by: {
                    method: [least(every[number], by, share) for share in shares]
                    for method, every in found[by].items()
                }
                for by, shares in SHARES.items()
            }
            for number, layer in enumerate(layers)
        ],
        "together": {
            by: {
                method: [together(every, by, share) for share in SHARES[by]]
                for method, every in found[by].items()
            }
            for by in SHARES
        },
        "dense_ms": round(1e3 * sum(float(dense_of(timer, layer)) for layer in layers), 4),
    }


def dense_of(timer: TimeModel, layer: Layer) -> Tensor:
    """Seconds of a dense layer."""
    return timer.seconds(layer, None, torch.zeros(1, 0, dtype=torch.int64))[0]


def costs(candidates: Candidates, by: str) -> Tensor:
    """What each candidate costs, in whole weights or nanoseconds; the dense layer's is the largest."""
    if by == "parameters":
        return candidates.parameters.double()
    assert candidates.seconds is not None
    return (1e9 * candidates.seconds).round()


def least(candidates: Candidates, by: str, share: float) -> float | None:
    """The least relative error in the outputs' metric within a share of the dense layer's cost; None if there is none."""
    spent = costs(candidates, by)
    within = candidates.error[spent <= share * spent.max()]
    return float(within.min().sqrt()) if len(within) else None


def together(every: Sequence[Candidates], by: str, share: float) -> float | None:
    """Relative error of all layers in the outputs' metric, within a share of what they cost together."""
    fronts = [Front(each.loss, costs(each, by)[:, None]) for each in every]
    limit = share * sum(float(front.costs.max()) for front in fronts)
    solution = solve(fronts, torch.tensor([math.floor(limit)], dtype=torch.float64))
    whole = sum(each.spectra.squared_norm for each in every)
    return math.sqrt(solution.loss / whole) if solution else None


def best_methods(errors: Mapping[str, Sequence[float | None]], number: int) -> list[str]:
    """The methods whose error is within :data:`CLOSE` of the least, at one of the shares."""
    reached = {
        method: value for method, each in errors.items() if (value := each[number]) is not None and value < 1
    }
    lowest = min(reached.values(), default=0.0)
    return [method for method, value in reached.items() if value <= CLOSE * lowest]


def markdown(report: Row) -> str:
    """The page."""
    known = report["environment"]
    lines = [
        "# When the full hierarchy is worth it",
        "",
        "Each layer with two spatial modes as HT-2 (1x1, Dx1, 1xD, 1x1), Tucker-2 (1x1, DxD, 1x1), spatial SVD (Dx1, 1xD), SVD of",
        "the outputs (DxD, 1x1) and CP (1x1, depthwise Dx1 and 1xD, 1x1), each alone, at equal parameters and at equal time. Errors",
        "are relative, as the network's outputs see them (objective `outputs`), from weights and images alone: nothing is fitted or",
        f"tuned afterwards. Time: ONNX Runtime, {report['networks'][0]['threads']} thread, batch 1, layers one by one, each chain in its fastest form.",
        "",
        "![Relative error against parameters and time, by method](hierarchy.svg)",
        "",
        "## All layers together",
        "",
        "Ranks where they do the most good: the least relative error of these layers, each weighed as the outputs see it, at a share",
        "of what they cost dense. A dash: the method has no such ranks.",
        "",
    ]
    for by, shares in SHARES.items():
        methods = methods_of(report)
        lines += [f"| network | {by} | {' | '.join(methods)} |", f"|---|---|{'---:|' * len(methods)}"]
        for row in report["networks"]:
            for number, share in enumerate(shares):
                values = {method: each[number] for method, each in row["together"][by].items()}
                lowest = min((value for value in values.values() if value is not None), default=0.0)
                cells = [shown(values.get(method), lowest) for method in methods]
                lines.append(f"| {row['network']} | {share:.0%} | {' | '.join(cells)} |")
        lines.append("")
    lines += [
        "## Layer by layer",
        "",
        f"In how many layers each method has the least error ({CLOSE - 1:.0%} more counts as the least, so several may have it), of so",
        "many that some method brings to this share.",
        "",
    ]
    for by, shares in SHARES.items():
        methods = methods_of(report)
        lines += [
            f"| network | {by} | layers | {' | '.join(methods)} |",
            f"|---|---|---:|{'---:|' * len(methods)}",
        ]
        for row in report["networks"]:
            for number, share in enumerate(shares):
                best = [best_methods(layer[by], number) for layer in row["layers"]]
                counts = [str(sum(method in each for each in best)) for method in methods]
                total = sum(bool(each) for each in best)
                lines.append(f"| {row['network']} | {share:.0%} | {total} | {' | '.join(counts)} |")
        lines.append("")
    networks = " ".join(row["network"] for row in report["networks"])
    lines += [
        f"Measured by `python benchmarks/hierarchy.py {networks} --data DATA --output docs/results`;",
        f"tuckertree {known['tuckertree']}, torch {known['torch']}, {known['processor']}.",
    ]
    return "\n".join(lines) + "\n"


def methods_of(report: Row) -> list[str]:
    """All methods that any network was measured with."""
    found = {method for row in report["networks"] for method in row["together"]["time"]}
    return [method for method in COLOURS if method in found]


def shown(value: float | None, lowest: float) -> str:
    """An error, in bold where it is the least; a dash where the method has no such layers."""
    if value is None:
        return "-"
    return f"**{value:.3f}**" if value <= CLOSE * lowest else f"{value:.3f}"


def drawn(report: Row) -> str:
    """A panel for each network and each kind of cost."""
    panels = [
        Panel(
            title=f"{row['network']}, equal {by}",
            lines={
                method: [(share, value) for share, value in zip(SHARES[by], values, strict=True) if value]
                for method, values in row["together"][by].items()
            },
            across=f"share of the {by}",
        )
        for by in SHARES
        for row in report["networks"]
    ]
    return picture(panels, COLOURS, "relative error", columns=len(report["networks"]))


if __name__ == "__main__":
    main()
