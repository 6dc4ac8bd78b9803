"""Networks of others on the whole way: compress, save, load, one training step, ONNX.

Each network has random weights, BatchNorm statistics of its own inputs, and a process of its own: what breaks is
shown with its one line and ends nothing else. The networks are in `foreign_networks.py`.

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
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from fnmatch import fnmatch
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

import tuckertree as tt
from foreign_networks import NETWORKS, Network
from merging import merged, write_report
from tuckertree.decomposition import method_cuts
from tuckertree.export import export
from tuckertree.measure import environment
from tuckertree.planning import DENSE, Options, take_inventory

NAME = "architectures"
STATIONS = ("build", "compress", "full ranks", "load", "train", "onnx")
SETTLING = 3
"""Passes that give BatchNorm its statistics."""
BATCHES = 4
"""Batches that calibrate."""
ROUNDING = 1e-3
"""Largest difference of the network at full ranks, and of its ONNX file, relative to the largest output."""
PACKAGES = ("torch", "torchvision", "timm", "segmentation-models-pytorch", "ultralytics", "transformers")
PACKAGES += ("diffusers", "monai", "torchaudio", "onnx", "onnxscript", "onnxruntime")
Row = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", default=[], help="shell patterns or parts of names")
    parser.add_argument("--again", action="store_true", help="measure anew what is in the results already")
    parser.add_argument("--seconds", type=int, default=300, help="time that one network may take")
    parser.add_argument("--output", type=Path, help=f"folder for {NAME}.json and .md")
    parser.add_argument("--one", help=argparse.SUPPRESS)  # the process of one network
    options = parser.parse_args()
    if options.one:
        travel(options.one)
        return
    file = options.output / f"{NAME}.json" if options.output else None
    rows = merged(file, "results", [], ("network",)) if file else []
    known = set() if options.again or options.only else {row["network"] for row in rows}
    wanted = [name for name in NETWORKS if chosen(name, options.only) and name not in known]
    for number, name in enumerate(wanted, 1):
        row = in_a_process(name, options.seconds)
        print(f"[{number}/{len(wanted)}] {name}: {row['error'] or 'passed'} ({row['seconds']} s)", flush=True)
        rows = [*(other for other in rows if other["network"] != name), row]
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
        row = states[-1] if states else {"network": name, "error": "", "station": STATIONS[0]}
        if code or error:
            row["error"] = error or f"the process ended with {code}: {last[:300]}"
        return {**row, "seconds": round(time.perf_counter() - started, 1)}


def travel(name: str) -> None:
    """Take a network all the way; what is known is printed after each station, as a line of JSON."""
    torch.set_num_threads(1)
    network, row = NETWORKS[name], Row(network=name, error="")
    with tempfile.TemporaryDirectory() as folder:
        stations = way(network, Path(folder), row)
        for station, step in zip(STATIONS, stations, strict=True):
            row["station"] = station
            print(json.dumps(row), flush=True)
            started = time.perf_counter()
            try:
                step()
            except Exception as error:
                kind = "" if isinstance(error, tt.TuckertreeError) else f"{type(error).__name__}: "
                row.setdefault("errors", {})[station] = (kind + " ".join(str(error).split()))[:400]
                if station in ("build", "compress"):
                    break  # there is nothing to go on with
            finally:
                row.setdefault("times", {})[station] = round(time.perf_counter() - started, 1)
    row["error"] = "; ".join(f"{station}: {text}" for station, text in row.get("errors", {}).items())
    print(json.dumps(row), flush=True)


def way(network: Network, folder: Path, row: Row) -> list[Callable[[], None]]:
    """The stations; each leaves what it made for the next ones, and its figures in the row."""
    made: dict[str, Any] = {}

    def build() -> None:
        made["model"], made["inputs"] = settled(network), network.inputs(0)
        made["unseen"] = network.inputs(99)

    def compress() -> None:
        batches = [network.inputs(number) for number in range(1, 1 + BATCHES)]
        result = made["result"] = tt.compress(
            made["model"], made["inputs"], tt.Budget(macs=network.macs), calibration=batches, progress=False
        )
        plan = result.plan
        dense = [layer for layer in plan.layers if layer.method == DENSE]
        row.update(
            parameters=list(plan.parameters),
            macs=list(plan.macs),
            layers=len(plan.layers),
            compressed=len(plan.compressed),
            reasons=dict(Counter(layer.reason for layer in dense).most_common()),
            output_error=difference(made["model"], result.model, made["unseen"], worst=False),
        )

    def full_ranks() -> None:
        plan = chains_everywhere(made["model"], made["inputs"], made["result"].plan)
        largest = tt.apply(made["model"], plan)
        row["chains"] = len(plan.compressed)
        row["full_ranks"] = difference(made["model"], largest, made["unseen"])
        if not row["full_ranks"] <= ROUNDING:
            raise ValueError(f"at full ranks the outputs differ by {row['full_ranks']:.2g}")

    def load() -> None:
        saved = made["result"].save(folder / "saved")
        loaded = made["loaded"] = tt.load(saved, into=network.build(seed=1))
        for inputs in (made["inputs"], made["unseen"]):
            ours, theirs = outputs(made["result"].model, inputs), outputs(loaded, inputs)
            if not ours or len(ours) != len(theirs) or not all(map(same, ours, theirs)):
                raise ValueError("the loaded network gives other outputs")

    def train() -> None:
        row["moved"] = training_step(made["loaded"], network)

    def onnx() -> None:
        inputs = made["inputs"]
        inputs = tuple(inputs.values()) if isinstance(inputs, Mapping) else inputs
        for dynamic in ("batch", "none"):
            try:
                written = export(
                    made["result"].model, folder / "a.onnx", inputs, dynamic=dynamic, tolerance=ROUNDING
                )
            except tt.TuckertreeError as error:
                row[f"onnx_{dynamic}"] = " ".join(str(error).split())[:400]
                last = error
            else:
                row["onnx"] = {"batch": dynamic, "difference": written.difference}
                return
        row["dense_onnx"] = dense_export(made["model"], inputs)
        raise last

    return [build, compress, full_ranks, load, train, onnx]


def dense_export(model: nn.Module, inputs: Any) -> str:
    """What becomes of the network before it was compressed on the way to ONNX: an error, or nothing."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            export(model, Path(folder) / "a.onnx", inputs, dynamic="none", tolerance=ROUNDING)
        except tt.TuckertreeError as error:
            return " ".join(str(error).split())[:400]
    return ""


def settled(network: Network) -> nn.Module:
    """The network in evaluation mode, with BatchNorm statistics as if it had seen its inputs in training."""
    model = network.build(seed=0).eval()
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = None  # the mean of all passes
        norm.reset_running_stats()
        norm.train()
    with torch.no_grad():
        for number in range(SETTLING if norms else 0):
            call(model, network.inputs(1000 + number))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    return model.eval()


def chains_everywhere(model: nn.Module, inputs: Any, plan: tt.Plan) -> tt.Plan:
    """The plan with a chain in place of every layer that can be one, at ranks that lose nothing."""
    layers = []
    for layer, planned in zip(take_inventory(model, inputs).layers, plan.layers, strict=True):
        method, _ = Options().method(layer)
        cuts = () if method == DENSE else method_cuts(method, len(layer.spec.essential_modes))
        layers.append(replace(planned, method=method, ranks=tuple(2**31 for _ in cuts)))
    return replace(plan, layers=tuple(layers))


def training_step(model: nn.Module, network: Network) -> float:
    """One step of SGD in training mode; gives the share of trained tensors that it moved."""
    torch.manual_seed(0)
    model.train()
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    before = {name: p.detach().clone() for name, p in trained.items()}
    chains = {
        id(p) for module in model.modules() if isinstance(module, tt.Chain) for p in module.parameters()
    }
    loss = loss_of(model, network)
    if not loss.isfinite():
        raise ValueError("the loss is not finite")
    loss.backward()
    for name, p in trained.items():
        if id(p) in chains and (p.grad is None or not p.grad.isfinite().all()):
            raise ValueError(f"{name} of a chain has no finite gradient")
    torch.optim.SGD(trained.values(), lr=1e-2).step()
    moved = [not torch.equal(before[name], p) for name, p in trained.items()]
    return sum(moved) / len(moved)


def loss_of(model: nn.Module, network: Network) -> Tensor:
    """Losses that the network gives itself, or the mean squares of its outputs."""
    if network.targets is not None:
        found = model(*network.inputs(0), network.targets())
        return torch.stack(list(found.values())).sum()
    values = [y for y in tensors(call(model, network.inputs(0))) if y.requires_grad]
    return torch.stack([y.float().square().mean() for y in values]).sum()


def call(model: nn.Module, inputs: Any) -> Any:
    if isinstance(inputs, Tensor):
        return model(inputs)
    return model(**inputs) if isinstance(inputs, Mapping) else model(*inputs)


@torch.no_grad()
def outputs(model: nn.Module, inputs: Any) -> list[Tensor]:
    torch.manual_seed(0)  # some draw noise in their forward pass
    return tensors(call(model.eval(), inputs))


def tensors(found: Any) -> list[Tensor]:
    """All tensors in whatever a network returns."""
    if isinstance(found, Tensor):
        return [found]
    if isinstance(found, Mapping):
        parts = list(found.values())
    elif is_dataclass(found):
        parts = [getattr(found, field.name) for field in fields(found)]
    else:
        parts = list(found) if isinstance(found, Sequence) and not isinstance(found, str) else []
    return [tensor for part in parts for tensor in tensors(part)]


def same(some: Tensor, other: Tensor) -> bool:
    return some.dtype == other.dtype and some.shape == other.shape and bool((some == other).all())


def difference(model: nn.Module, other: nn.Module, inputs: Any, *, worst: bool = True) -> float | None:
    """Difference of the floating outputs: the largest of all, or ||y' - y|| / ||y||; none where sizes differ."""
    pairs = list(zip(outputs(model, inputs), outputs(other, inputs), strict=False))
    pairs = [(a.double(), b.double()) for a, b in pairs if a.is_floating_point() and a.numel()]
    if not pairs or any(a.shape != b.shape for a, b in pairs):
        return None
    if worst:
        return max(float((a - b).abs().max() / a.abs().max().clamp_min(1e-30)) for a, b in pairs)
    lost = sum(float((a - b).square().sum()) for a, b in pairs)
    return float((lost / max(sum(float(a.square().sum()) for a, _ in pairs), 1e-30)) ** 0.5)


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
        f"{passed} of {len(rows)} pass every station. Random weights, BatchNorm statistics of the network's own inputs,",
        "a budget of MACs ({SHARE:g} where it can be reached), factors fitted to eight random inputs; then",
        "",
        "- *output error*: ||y' - y|| / ||y|| on an input that took no part. Weights are random, so it says little;",
        f"- *full ranks*: chains in place of all layers that can be one, nothing cut off, give the outputs of the original, to {ROUNDING:g} of the largest;",
        "- *load*: the network that is loaded into another one of its kind gives the same outputs, bit for bit;",
        "- *training step*: a step of SGD in training mode: a finite loss, finite gradients in every chain; the share",
        "  of tensors that it moved;",
        f"- *ONNX*: the file in ONNX Runtime gives the same outputs, to {ROUNDING:g} of the largest; with a free batch, or with",
        "  a fixed one where the network has one.",
        "",
        "What fails is named below the table, and what stays dense, with the reason. Measured by",
        "`python benchmarks/architectures.py --output docs/results`;",
        f"tuckertree {found['tuckertree']}, "
        + ", ".join(f"{package} {found[package]}" for package in PACKAGES if package in found)
        + ".",
        "",
        "| network | layers compressed | parameters | MACs | output error | full ranks | load | training step | ONNX | s |",
        "|---|---|---|---|---|---|---|---|---|---|",
        *map(line, rows),
    ]
    if any(row["error"] for row in rows):
        lines += ["", "## What fails", ""]
        lines += [f"- {row['network']}: {row['error']}{beside(row)}" for row in rows if row["error"]]
    lines += ["", "## What stays dense, and why", ""]
    lines += [f"- {row['network']}: {dense(row)}" for row in rows if row.get("reasons")]
    return "\n".join(lines) + "\n"


def line(row: Row) -> str:
    failed = row.get("errors", {})
    passed = {station: "fails" if station in failed else "yes" for station in STATIONS}
    if row["error"] and not failed:
        failed = {row["station"]: row["error"]}
    known = "layers" in row
    cells = [
        row["network"],
        f"{row['compressed']} of {row['layers']}" if known else f"{next(iter(failed), row['station'])} fails",
        less(row["parameters"]) if known else "",
        less(row["macs"]) if known else "",
        figure(row.get("output_error")),
        figure(row.get("full_ranks")),
        passed["load"] if known else "",
        (f"{row['moved']:.0%}" if "moved" in row else "fails") if known else "",
        onnx_cell(row) if known else "",
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
