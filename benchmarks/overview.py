"""One network in one picture: accuracy against measured time, for the paper's rule, budgets with images, and 8 bits.

    python benchmarks/overview.py DATA --output docs/results                       # VGG-19-BN, an hour on one core
    python benchmarks/overview.py --network ResNet-20 --limit 500 --output out     # the packaged network and images

DATA is the folder of `benchmarks/tuning.py`. Networks are made and scored first; what is in overview.json is not made again.
Then all of them run in ONNX Runtime in turns, batch 1: time on a quiet machine. `--draw` draws what is there.
"""

from __future__ import annotations

import argparse
import json
import math
import time
import warnings
from collections.abc import Sequence
from html import escape
from importlib.metadata import version
from pathlib import Path

import torch

import tuckertree as tt
from merging import Row, write_report
from svg import document, text
from trained import NETWORKS, Trained, open_network
from tuckertree._base.progress import progress_bar
from tuckertree.io.export import FileNetwork, export
from tuckertree.measure import environment
from tuckertree.runtimes import get_runtime
from tuckertree.tools.bench import bench, open_subject

DENSE, PAPER, OURS, INT8, BOTH = (
    "dense",
    "the paper's rule",
    "tuckertree",
    "8 bits alone",
    "tuckertree, 8 bits",
)
ENERGIES, FACTORS, IN_INT8 = (0.95, 0.9, 0.8), (2.0, 4.0, 8.0), (4.0, 8.0)
RANGES, BATCH = 256, 32


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, nargs="*")
    parser.add_argument("--network", default="VGG-19-BN", choices=NETWORKS)
    parser.add_argument("--limit", type=int, help="test images of CIFAR-10; all by default")
    parser.add_argument("--threads", type=int, default=2, help="of the timed runs")
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--draw", action="store_true", help="measure nothing")
    parser.add_argument("--output", type=Path, required=True, help="folder for overview.json, .md and .svg")
    options = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    options.output.mkdir(parents=True, exist_ok=True)
    kept = options.output / "overview.json"
    report: Row = json.loads(kept.read_text()) if kept.exists() else {}
    if report.get("network") not in (None, options.network):
        raise SystemExit(f"{kept} is of {report['network']}")
    if not options.draw:
        files = options.output / "overview"
        files.mkdir(exist_ok=True)
        report = {"network": options.network, "threads": options.threads, "rows": report.get("rows", [])}
        report["environment"] = {**environment(), "onnxruntime": version("onnxruntime")}
        trained = open_network(options.network, options.data, options.limit)
        compressed: dict[float, tt.CompressionResult] = {}
        for number, (method, asked) in enumerate(wanted()):
            done = any((row["method"], row["asked"]) == (method, asked) for row in report["rows"])
            if done and (files / f"{number}.onnx").exists():
                continue
            report["rows"] = [r for r in report["rows"] if (r["method"], r["asked"]) != (method, asked)]
            report["rows"].append(made(trained, method, asked, files / f"{number}.onnx", compressed))
            kept.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
        order = {key: number for number, key in enumerate(wanted())}
        report["rows"].sort(key=lambda row: order[row["method"], row["asked"]])
        times = timed([files / f"{number}.onnx" for number in range(len(order))], options)
        for row, found in zip(report["rows"], times, strict=True):
            row |= found
    write_report(options.output, "overview", report, markdown(report))
    (options.output / "overview.svg").write_text(picture(report), encoding="utf-8")


def wanted() -> list[tuple[str, float]]:
    """Method, and its energy or factor of MACs."""
    rows = [(DENSE, 1.0), *((PAPER, energy) for energy in ENERGIES), *((OURS, factor) for factor in FACTORS)]
    return [*rows, (INT8, 1.0), *((BOTH, factor) for factor in IN_INT8)]


def made(
    trained: Trained, method: str, asked: float, file: Path, compressed: dict[float, tt.CompressionResult]
) -> Row:
    """Make one network, write it as a file, and score that; ``compressed`` are those of budgets, made once."""
    start = time.perf_counter()
    fold, model, row = trained.folds[0], trained.model, {"method": method, "asked": asked}
    if method == PAPER:
        result = tt.compress(model, trained.example, energy=asked, progress=False)
    elif method in (OURS, BOTH):
        result = compressed.get(asked) or tt.compress(
            model,
            trained.example,
            tt.Budget(macs=1 / asked),
            calibration=fold.calibration,
            progress=False,
        )
        compressed[asked] = result
    if method in (PAPER, OURS, BOTH):
        model = result.model
        row |= {"macs": result.plan.macs, "parameters": result.plan.parameters}
    row["seconds"] = time.perf_counter() - start
    ranges = list(fold.calibration[:RANGES].split(BATCH)) if method in (INT8, BOTH) else None
    export(model, file, trained.example, calibration=ranges, tolerance=float("inf"), overwrite=True)
    row |= {"top1": fold.score(FileNetwork(file))["top1"], "images": fold.count, "bytes": file.stat().st_size}
    print(row, flush=True)
    return row


def timed(files: Sequence[Path], options: argparse.Namespace) -> list[Row]:
    """All files in turns: milliseconds, and how much faster than the first, median and quartiles."""
    runtime = get_runtime("onnxruntime", threads=options.threads)
    with progress_bar() as tick:
        subjects = [open_subject(file) for file in files]
        found = bench(subjects, [runtime], repeats=options.rounds, memory=False, tick=tick)
    return [
        {
            "ms": 1e3 * each.seconds.median,
            "faster": [
                1 / share for share in (each.time_ratio.high, each.time_ratio.median, each.time_ratio.low)
            ],
        }
        for each in found
    ]


def markdown(report: Row) -> str:
    machine, rows = report["environment"], report["rows"]
    lines = [
        f"# {report['network']} in one picture",
        "",
        "![Accuracy against measured time](overview.svg)",
        "",
        f"No fine-tuning. Top-1 on {rows[0]['images']:,} test images, of the file that is timed, in ONNX Runtime {machine['onnxruntime']}. The",
        "paper's rule: one energy for all layers, from the weights alone. tuckertree: a budget of MACs, factors fitted to 1,024",
        "unlabelled training images. 8 bits: as `tuckertree export --quantize int8` makes them. Times: batch 1, "
        f"{report['threads']} threads, all files in",
        "turns, in brackets the quartiles. Seconds to compress on one thread, beside other work. Measured by `python",
        f"benchmarks/overview.py DATA --output docs/results`; seed 0, tuckertree {machine['tuckertree']}, torch {machine['torch']}, {machine['processor']}.",
        "",
        "| method | energy or MACs asked | MACs less | parameters less | file MiB | top-1 | ms | faster | seconds to compress |",
        "|---|---|---:|---:|---:|---:|---:|---|---:|",
    ]
    for row in rows:
        less = [
            f"{row[kind][0] / row[kind][1]:.2f}x" if kind in row else "" for kind in ("macs", "parameters")
        ]
        low, middle, high = row["faster"]
        asked = "" if row["method"] in (DENSE, INT8) else f"{row['asked']:g}"
        asked += "x" if row["method"] in (OURS, BOTH) else ""
        cells = (
            row["method"],
            asked,
            *less,
            f"{row['bytes'] / 2**20:.1f}",
            f"{row['top1']:.2f}",
            f"{row['ms']:.3g}",
        )
        cells += (
            f"{middle:.2f}x ({low:.2f}-{high:.2f})",
            f"{row['seconds']:.0f}" if row["method"] in (PAPER, OURS) else "",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


COLOURS = {DENSE: "#555555", PAPER: "#c1440e", OURS: "#1f6fb2", INT8: "#7a5195", BOTH: "#15803d"}
WIDE, HIGH, LEFT, TOP, RIGHT, BOTTOM = 760, 420, 62, 50, 24, 52


def picture(report: Row) -> str:
    """The same as a picture: time to the right, top-1 upwards."""
    rows = report["rows"]
    times = [row["ms"] for row in rows]
    longest = 1.08 * max(times)
    high = 5 * -(-max(row["top1"] for row in rows) // 5)
    low = min(high - 15, 5 * (min(row["top1"] for row in rows) // 5))

    def at(row: Row) -> tuple[float, float]:
        x = LEFT + (WIDE - LEFT - RIGHT) * row["ms"] / longest
        return x, TOP + (HIGH - TOP - BOTTOM) * (high - row["top1"]) / (high - low)

    parts = [
        text(LEFT, 24, f"{report['network']}, no fine-tuning: accuracy against measured time", "start", 15)
    ]
    step = 5 if high - low <= 40 else 20
    for level in range(int(low), int(high) + 1, step):
        y = TOP + (HIGH - TOP - BOTTOM) * (high - level) / (high - low)
        parts.append(f'<path d="M{LEFT} {y:.1f}H{WIDE - RIGHT}" stroke="#dddddd"/>')
        parts.append(text(LEFT - 8, y + 4, f"{level} %", "end"))
    power = 10.0 ** math.floor(math.log10(longest))
    between = next(power * each for each in (0.1, 0.2, 0.5, 1, 2) if longest / (power * each) <= 9)
    for number in range(int(longest / between) + 1):
        x = LEFT + (WIDE - LEFT - RIGHT) * number * between / longest
        parts.append(text(x, HIGH - BOTTOM + 18, f"{number * between:.3g}", "middle"))
    threads = report["threads"]
    parts.append(
        text((LEFT + WIDE) / 2, HIGH - 12, f"ms for one image, ONNX Runtime, {threads} threads", "middle")
    )
    for method, colour in COLOURS.items():
        found = [row for row in rows if row["method"] == method]
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in map(at, found))
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>')
        for row in found:
            x, y = at(row)
            told = f"{method}: {row['top1']:.2f} %, {row['ms']:.3g} ms, {row['faster'][1]:.2f}x faster"
            parts.append(
                f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5.5" fill="{colour}"><title>{escape(told)}</title></circle>'
            )
    for number, (method, colour) in enumerate(COLOURS.items()):
        x, y = WIDE - RIGHT - 190, HIGH - BOTTOM - 22 * (len(COLOURS) - number) + 6
        parts.append(f'<circle cx="{x}" cy="{y - 4}" r="5.5" fill="{colour}"/>')
        parts.append(text(x + 14, y, method, "start"))
    return document(WIDE, HIGH, f"Accuracy of {report['network']} against its time, by method", parts)


if __name__ == "__main__":
    main()
