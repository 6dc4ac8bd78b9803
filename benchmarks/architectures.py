"""Networks of others on the whole way: compress, save, load, one training step, ONNX.

Each network has random weights, BatchNorm statistics of its inputs, and a process of its own: what breaks is
shown with its one line and ends nothing else. The networks are in `foreign/`.

    pip install -r benchmarks/architectures-requirements.txt
    python benchmarks/architectures.py --output docs/results              # what is not in the results yet
    python benchmarks/architectures.py --only yolo 'smp:*' --output docs/results

Results are added to those in the folder, a network at a time, so a run that is killed goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from fnmatch import fnmatch
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from foreign import NETWORKS
from foreign.way import PHASES, ROUNDING, Row, travel
from merging import merged, write_report
from tuckertree.measure import environment

NAME = "architectures"
PACKAGES = (
    "torch",
    "torchvision",
    "timm",
    "segmentation-models-pytorch",
    "ultralytics",
    "transformers",
    "diffusers",
    "monai",
    "torchaudio",
    "spandrel",
    "onnx",
    "onnxscript",
    "onnxruntime",
)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", default=[], help="shell patterns or parts of names")
    parser.add_argument("--again", action="store_true", help="measure anew what is in the results already")
    parser.add_argument("--seconds", type=int, default=600, help="time that one network may take")
    parser.add_argument("--output", type=Path, help=f"folder for {NAME}.json and .md")
    parser.add_argument("--one", help=argparse.SUPPRESS)  # the process of one network
    options = parser.parse_args()
    if options.one:
        travel(options.one, NETWORKS[options.one])
        return
    file = options.output / f"{NAME}.json" if options.output else None
    rows = merged(file, "results", [], ("network",)) if file else []
    known = set() if options.again or options.only else {row["network"] for row in rows}
    wanted = [name for name in NETWORKS if chosen(name, options.only) and name not in known]
    for number, name in enumerate(wanted, 1):
        row = in_a_process(name, options.seconds)
        print(f"[{number}/{len(wanted)}] {name}: {row['error'] or 'passed'} ({row['seconds']} s)", flush=True)
        # What lies there is read again: two runs may share the work.
        rows = merged(file, "results", [row], ("network",)) if file else [*rows, row]
        if file:
            rows = write(rows, file.parent)
    print(markdown(rows))


def chosen(name: str, patterns: Sequence[str]) -> bool:
    return not patterns or any(pattern in name or fnmatch(name, pattern) for pattern in patterns)


def in_a_process(name: str, seconds: int) -> Row:
    """Run one network in a process of its own; a crash or a lack of time is an error of its row."""
    with tempfile.TemporaryDirectory() as folder:
        record = Path(folder) / "row.jsonl"
        settings = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "YOLO_OFFLINE": "true", "TMPDIR": folder}
        command = [sys.executable, __file__, "--one", name]
        started, error = time.perf_counter(), ""
        with record.open("w") as out, (Path(folder) / "stderr").open("w+") as err:
            try:
                code = subprocess.run(
                    command,
                    stdout=out,
                    stderr=err,
                    env={**os.environ, **settings},
                    timeout=seconds,
                    check=False,
                ).returncode
            except subprocess.TimeoutExpired:
                code, error = 0, f"took more than {seconds} s"
            err.seek(0)
            last = (err.read().strip().splitlines() or [""])[-1]
        states = [json.loads(line) for line in record.read_text().splitlines() if line.startswith("{")]
        row = states[-1] if states else {"network": name, "error": "", "station": PHASES[0]}
        if code or error:
            row["error"] = error or f"the process ended with {code}: {last[:300]}"
        return {**row, "seconds": round(time.perf_counter() - started, 1)}


def write(rows: list[Row], folder: Path) -> list[Row]:
    """Put the rows into the results in a folder, in the order of the networks."""
    order = list(NETWORKS)
    ordered = sorted(
        (row for row in rows if row["network"] in order), key=lambda row: order.index(row["network"])
    )
    write_report(folder, NAME, {"environment": machine(), "results": ordered}, markdown(ordered))
    return ordered


def machine() -> dict[str, str | int]:
    found: dict[str, str | int] = {**environment()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def markdown(rows: list[Row]) -> str:
    found = machine()
    passed = sum(not row["error"] for row in rows)
    lines = [
        "# Networks of others on the whole way",
        "",
        f"{passed} of {len(rows)} pass every phase. Random weights, BatchNorm statistics of random inputs,",
        "a budget of MACs (most often 0.6), factors fitted to two batches of random inputs; then",
        "",
        "- *output error*: ||y' - y|| / ||y|| on an input that took no part. Weights are random, so it says little;",
        "- *groups thinned*: groups of layers between which hidden channels go;",
        f"- *full ranks*: chains in place of all layers that can be one, nothing cut off, give the outputs of the original, to {ROUNDING:g}",
        "  of the largest; *jumps*: detectors of random weights, whose own boxes change as much with the last digits of the input;",
        "- *load*: the network that is loaded into another one of its kind gives the same outputs, bit for bit;",
        "- *training step*: a step of SGD in training mode: a finite loss, finite gradients in every chain; the share",
        "  of tensors that it moved;",
        f"- *ONNX*: the file in ONNX Runtime gives the same outputs, to {ROUNDING:g} of the largest; with a free batch, or with",
        "  a fixed one where the network has one.",
        "",
        "What is refused or fails is named below the table, and what stays dense, with the reason. Measured by",
        "`python benchmarks/architectures.py --output docs/results`;",
        f"tuckertree {found['tuckertree']}, "
        + ", ".join(f"{package} {found[package]}" for package in PACKAGES if package in found)
        + ".",
        "",
        "| network | layers factored | groups thinned | parameters | MACs | output error | full ranks | load | training step | ONNX | s |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
        *map(line, rows),
    ]
    if any(row["error"] for row in rows):
        lines += ["", "## What is refused or fails", ""]
        lines += [f"- {row['network']}: {row['error']}{beside(row)}" for row in rows if row["error"]]
    lines += ["", "## What stays dense, and why", ""]
    lines += [f"- {row['network']}: {dense(row)}" for row in rows if row.get("reasons")]
    return "\n".join(lines) + "\n"


def line(row: Row) -> str:
    if "layers" not in row:
        return f"| {row['network']} | {row['station']} fails {'| ' * 9}| {row['seconds']:.0f} |"
    cells = [
        row["network"],
        f"{row['compressed']} of {row['layers']}",
        str(row["pruned"]),
        less(row["parameters"]),
        less(row["macs"]),
        figure(row["output_error"]),
        "fails"
        if "full ranks" in row.get("errors", {})
        else "jumps"
        if row.get("jumps")
        else figure(row.get("full_ranks")),
        "yes" if "loaded" in row else "fails",
        f"{row['moved']:.0%}" if "moved" in row else "fails",
        onnx_cell(row),
        f"{row['seconds']:.0f}",
    ]
    return f"| {' | '.join(cells)} |"


def onnx_cell(row: Row) -> str:
    if "onnx" not in row:
        return "fails"
    return f"{row['onnx']['difference']:.0e}" + (", fixed batch" if row["onnx"]["batch"] == "none" else "")


def beside(row: Row) -> str:
    """Whether what fails in ONNX fails in the original too."""
    if "onnx" not in row.get("errors", {}):
        return ""
    return (
        f" (before compression: {row['dense_onnx']})"
        if row.get("dense_onnx")
        else " (before compression it does not)"
    )


def dense(row: Row) -> str:
    return "; ".join(f"{count} {reason}" for reason, count in row["reasons"].items())


def figure(value: float | None) -> str:
    return "" if value is None else f"{value:.1g}"


def less(pair: Sequence[int]) -> str:
    return f"{pair[0] / pair[1]:.2f}x"


if __name__ == "__main__":
    main()
