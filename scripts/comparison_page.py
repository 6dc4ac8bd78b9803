"""Make docs/results/comparison.md and its picture from what `tuckertree compare --json` printed or benchmarks/comparison.py wrote.

    tuckertree compare cifar10:resnet20 ... --json > docs/results/comparison/resnet20.json
    python benchmarks/comparison.py --data DATA ZOO --output docs/results
    python scripts/comparison_page.py

The same commands again give what is in their folders and measure nothing twice.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "benchmarks"))

from svg import Panel, picture  # noqa: E402
from tuckertree.tools.comparison import Score  # noqa: E402

Cells = Mapping[tuple[str, str], Mapping[str, Any]]
TITLES = {
    "cifar10:resnet20": "ResNet-20, CIFAR-10",
    "cifar10:vgg19_bn": "VGG-19-BN, CIFAR-10",
    "caffe:googlenet": "GoogLeNet, photographs",
    "timm:tf_efficientnet_lite0": "EfficientNet-Lite0, photographs",
    "VDSR": "VDSR, Set5",
    "YOLOX-nano": "YOLOX-nano, COCO, an ONNX file",
}
COLOURS = {
    "default": "#c2185b",
    "ht2": "#7b1fa2",
    "tucker2": "#1565c0",
    "spatial": "#2e7d32",
    "svd": "#8d6e63",
    "depthwise": "#00838f",
    "cp": "#ef6c00",
    "prune": "#455a64",
    "channels": "#9e9d24",
}
TOP1, UPWARDS = "top-1", "top-1, %"
HEAD = """# Against the other ways

One harness, `tuckertree compare`: the same weights, the same unlabelled images to fit and tune with, the same seed, budgets in
MACs of the whole network. `default` is what `compress` does by itself; `ht2`, `tucker2`, `spatial` (SVD), `svd`, `depthwise` and `cp` are
one method or dense, layer by layer, with ranks by the same budget and factors fitted to the same images; `prune` is
torch-pruning. `:weights` is the method as it is mostly published, without images. No labels were used, nothing was
chosen on the images that are scored. Top-1 in percent, or what a table names; **bold** is the best of its row. ResNet-20 by
`tuckertree compare`, the others through it by `benchmarks/comparison.py`, with as many folds as are named. [What is kept
equal](../comparison.md).

![Scores against MACs, by method](comparison.svg)
"""


def main() -> None:
    """Write the page and the picture."""
    results = ROOT / "docs/results"
    found = [
        json.loads(file.read_text(encoding="utf-8")) for file in sorted(results.glob("comparison/*.json"))
    ]
    found.sort(key=lambda each: list(TITLES).index(each["settings"]["model"]))
    page = HEAD + "".join(f"\n{section(each)}" for each in found)
    (results / "comparison.md").write_text(page, encoding="utf-8")
    panels = [panel(each) for each in found]
    (results / "comparison.svg").write_text(
        picture(panels, COLOURS, UPWARDS, columns=min(len(panels), 2)), encoding="utf-8"
    )


def section(comparison: Mapping[str, Any]) -> str:
    """A network: what was kept equal, a table of scores, and one of times where they were taken."""
    settings, cells = comparison["settings"], by_method_and_budget(comparison)
    dense = comparison["outcomes"][0]
    tuned = f", tuned for {settings['tune']} steps" if settings["tune"] else ""
    folds = f" in each of {settings['folds']} folds" if "folds" in settings else ""
    names = "" if TOP1 in numbers(dense["score"]) else f", {' / '.join(numbers(dense['score']))}"
    lines = [
        f"## {TITLES[settings['model']]}",
        "",
        f"Dense {said(dense['score'])} of {settings['data images']} images; {settings['calibration images']} unlabelled "
        f"images{folds}{tuned}; tuckertree {settings['tuckertree']}, torch {settings['torch']}.",
        "",
    ]
    budgets = sorted({budget for _, budget in cells}, key=lambda each: float(each.rstrip("x")))
    for key, what in (("score", "fitted"), ("tuned", "tuned")):
        lines += table(cells, budgets, what + names, [m for m in methods_in(cells) if ":" not in m], key)
    lines += table(
        cells, budgets, f"weights alone{names}", [m for m in methods_in(cells) if ":" in m], "score"
    )
    if settings["runtime"]:
        lines += [
            f"Times faster than dense on {settings['runtime']}, {settings['threads']} thread, batch {settings['batch']}, in turns with "
            "it (other work was on the machine: read the ratio):",
            "",
            *times(cells, budgets),
        ]
    reasons = {
        f"`{each['method']}` at {each['budget']}: {each['failed']}"
        for each in comparison["outcomes"]
        if each["failed"]
    }
    return "\n".join([*lines, *(f"- {reason}" for reason in sorted(reasons)), *([""] if reasons else [])])


def by_method_and_budget(comparison: Mapping[str, Any]) -> Cells:
    """What came of each method at each budget."""
    return {(each["method"], each["budget"]): each for each in comparison["outcomes"][1:]}


def methods_in(cells: Cells) -> list[str]:
    """Methods in the order of the legend, those without images last."""
    names = {method for method, _ in cells}
    return sorted(names, key=lambda name: (":" in name, list(COLOURS).index(name.partition(":")[0])))


def table(cells: Cells, budgets: Sequence[str], what: str, methods: Sequence[str], key: str) -> list[str]:
    """Scores of some methods, a row for each budget; nothing if there are none. The first number of a score counts."""
    scores = {
        place: list(numbers(each[key]).values())
        for place, each in cells.items()
        if place[0] in methods and each[key]
    }
    if not scores:
        return []
    lines = [f"| MACs, {what} | {' | '.join(methods)} |", f"|---|{'---:|' * len(methods)}"]
    for budget in budgets:
        row = [scores.get((method, budget)) for method in methods]
        best = max((values[0] for values in row if values), default=None)
        lines.append(f"| {budget} | {' | '.join(scored(values, best) for values in row)} |")
    return [*lines, ""]


def scored(values: Sequence[float] | None, best: float | None) -> str:
    """The numbers of a score, in bold if the first is the best."""
    if not values:
        return "-"
    return " / ".join([bold(values[0], values[0] == best, 2), *(f"{value:.2f}" for value in values[1:])])


def numbers(score: Mapping[str, Any]) -> Mapping[str, float]:
    """Of a score, by their names."""
    return Score(**score).numbers


def said(score: Mapping[str, Any]) -> str:
    """A score in a sentence; top-1 needs no name."""
    return ", ".join(f"{name} {value:.2f}".removeprefix(f"{TOP1} ") for name, value in numbers(score).items())


def times(cells: Cells, budgets: Sequence[str]) -> list[str]:
    """How many times faster each method is."""
    methods = [method for method in methods_in(cells) if ":" not in method]
    lines = [f"| MACs | {' | '.join(methods)} |", f"|---|{'---:|' * len(methods)}"]
    for budget in budgets:
        found = [cells.get((method, budget), {}).get("latency") for method in methods]
        row = [1 / each["ratio"] if each else None for each in found]
        best = max((value for value in row if value is not None), default=None)
        lines.append(f"| {budget} | {' | '.join(bold(value, value == best, 2, 'x') for value in row)} |")
    return [*lines, ""]


def bold(value: float | None, best: bool, digits: int, unit: str = "") -> str:
    """A number, in bold if it is the best, a dash if there is none."""
    if value is None:
        return "-"
    text = f"{value:.{digits}f}{unit}"
    return f"**{text}**" if best else text


def panel(comparison: Mapping[str, Any]) -> Panel:
    """Scores against MACs; tuned where they were."""
    settings, cells = comparison["settings"], by_method_and_budget(comparison)
    dense = comparison["outcomes"][0]
    key, name = "tuned" if settings["tune"] else "score", next(iter(numbers(dense["score"])))
    lines = {
        method: [
            (dense["macs"] / each["macs"], numbers(each[key])[name])
            for place, each in cells.items()
            if place[0] == method and each[key]
        ]
        for method in methods_in(cells)
        if ":" not in method
    }
    tuned = ", tuned" if settings["tune"] else ", fitted"
    upwards = UPWARDS if name == TOP1 else name
    return Panel(TITLES[settings["model"]] + tuned, lines, "times fewer MACs", linear=True, upwards=upwards)


if __name__ == "__main__":
    main()
