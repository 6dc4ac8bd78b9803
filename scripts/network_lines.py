"""What was measured of a network, read from the results: one line for each measurement."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from network_list import Network

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "docs/results"
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Line:
    """What was measured once, and the command that does it."""

    how: str
    command: str
    source: str
    parameters: tuple[int, int] | None = None
    macs: tuple[int, int] | None = None
    size: tuple[int, int] | None = None
    score: tuple[float | None, float] | None = None
    latency: tuple[float | None, float, str] | None = None
    seconds: float | None = None


def read(name: str) -> Any:
    """The data of one page of results."""
    return json.loads((RESULTS / name).read_text(encoding="utf-8"))


def pair(row: Row, name: str) -> Any:
    """A number before and after, where the row has it."""
    return tuple(row[name]) if name in row else None


def threads(row: Row) -> str:
    """How many threads a time is of."""
    return f"{row['threads']} thread" + ("s" if row["threads"] > 1 else "")


def compress(of: Network, what: str, file: str | None = None) -> str:
    """The command that compresses a network."""
    output = "small.onnx" if of.model.endswith(".onnx") else "out/small"
    images = of.images if "--calibration" in what or "--data" in what else ""
    return f"tuckertree compress {file or of.model}{of.weights} {what}{images} --output {output}"


def budgets(of: Network) -> Iterator[Line]:
    """Budgets fitted to images, and the paper's rule at the same reduction."""
    for row in read("post_training.json")["results"]:
        if row["network"].partition(",")[0] in of.names:
            kind, factor = row["budget"].split()
            paper = row["rule"] == "paper"
            what = f"--energy {row['energy']:g}" if paper else f"--{kind} {factor} --calibration IMAGES"
            yield Line(
                f"the paper's rule, energy {row['energy']:g}" if paper else f"budget, {kind} {factor}",
                compress(of, what),
                "post_training",
                pair(row, "parameters"),
                pair(row, "macs"),
                score=(row["top1_dense"], row["top1"]),
                seconds=row.get("seconds"),
            )


def tuned(of: Network) -> Iterator[Line]:
    """Budgets, tuned without labels."""
    for path in sorted((RESULTS / "tuning").glob("*.json")):
        row = json.loads(path.read_text(encoding="utf-8"))
        if row["network"] in of.names:
            kind, factor = row["budget"].split()
            steps = row["tuning"][0]["steps"]
            measure = next(iter(row["dense"]))
            budget, seconds = f"--{kind} {factor} --calibration IMAGES", row["seconds_compressing"]
            for name, how, what, spent in (
                ("calibrated", "", budget, 0.0),
                ("tuned", f", tuned {steps} steps", f"{budget} --tune {steps}", row["seconds_tuning"]),
            ):
                yield Line(
                    f"budget, {kind} {factor}{how}",
                    compress(of, what),
                    "tuning",
                    pair(row, "parameters"),
                    pair(row, "macs"),
                    score=(row["dense"][measure], row[name][measure]),
                    seconds=seconds + spent,
                )


def dropped(of: Network) -> Iterator[Line]:
    """Budgets said in accuracy."""
    data = read("max_drop.json")
    for row in data["rows"]:
        if row["network"] in of.names:
            yield Line(
                f"at most {data['points']:g} point of top-1",
                compress(of, f"--max-drop {data['points']:g} --data DATA"),
                "max_drop",
                pair(row, "parameters"),
                pair(row, "macs"),
                score=tuple(row["top1"]),
                seconds=row["seconds"],
            )


def targets(of: Network) -> Iterator[Line]:
    """Targets of latency; what was refused, too."""
    for row in read("latency_target.json")["rows"]:
        if row["network"] in of.names and row["rule"] != "same MACs":
            int8 = " in 8 bits too" if "int8" in row["rule"] else ""
            what = f"--latency {row['asked']} --threads {row['threads']} --calibration IMAGES"
            faster = row.get("again", {}).get("median", row.get("measured"))
            error = (None, row["output_error"]) if "output_error" in row else None
            yield Line(
                f"latency {row['asked']}{int8}" + (": refused" if "refused" in row else ""),
                compress(of, what + (" --precision fp32,int8" if int8 else "")),
                "latency_target",
                pair(row, "parameters"),
                pair(row, "macs"),
                score=(row["top1_dense"], row["top1"]) if "top1" in row else error,
                latency=(row["dense_ms"], 1 / faster, threads(row)) if faster else None,
                seconds=row.get("seconds"),
            )


def quantized(of: Network) -> Iterator[Line]:
    """ONNX files, in 8 bits too."""
    for row in read("int8.json")["rows"]:
        if row["network"] in of.names:
            forms = row["forms"]
            dense = forms["fp32"]
            for name in ("fp32, compressed", "int8", "int8, compressed"):
                less, form = "compressed" in name, forms[name]
                model = "out/small" if less else of.model + of.weights
                eight = " --quantize int8 --calibration IMAGES" if "int8" in name else ""
                faster = (dense["ms"], form["faster"][1], threads(row)) if "ms" in form else None
                yield Line(
                    f"ONNX, {name.replace(', compressed', '')}"
                    + (f", {row['budget']}" if less else ", dense"),
                    f"tuckertree export {model}{eight} --output net.onnx",
                    "int8",
                    pair(row, "parameters") if less else None,
                    pair(row, "macs") if less else None,
                    (dense["bytes"], form["bytes"]),
                    (dense["score"], form["score"]),
                    faster,
                )


def detected(of: Network) -> Iterator[Line]:
    """The detector of COCO."""
    rows = read("detection.json")["results"] if of.page == "yolox-nano" else []
    dense = next((row["map"] for row in rows if not row["objective"]), None)
    for row in rows:
        if row["objective"]:
            steps = f" --tune {row['tuned']}" if row.get("tuned") else ""
            objective = "" if row["objective"] == "outputs" else f" --objective {row['objective']}"
            yield Line(
                f"budget, MACs {row['budget']:g}{objective.replace(' --', ', ')}{steps.replace(' --tune', ', tuned')}",
                compress(of, f"--macs {row['budget']:g} --calibration COCO{objective}{steps}"),
                "detection",
                pair(row, "parameters"),
                pair(row, "macs"),
                score=(dense, row["map"]),
                seconds=row["seconds"],
            )


def searched(of: Network) -> Iterator[Line]:
    """Targets of latency without images: times alone."""
    data = read("search.json")
    for row in data["results"]:
        if row["network"] in of.names:
            yield Line(
                f"latency {data['asked']}, times alone",
                compress(of, f"--latency {data['asked']} --threads {row['threads']} --best-effort"),
                "search",
                macs=pair(row, "macs"),
                latency=(row["dense_ms"], 1 / row["measured"], threads(row)),
                seconds=row["seconds"],
            )


def files(of: Network) -> Iterator[Line]:
    """ONNX files of others."""
    for row in read("onnx_models.json")["results"]:
        if row["model"] in of.names:
            file = Path(row["file"]).name
            images = " --calibration PHOTOS" if row["images"] else ""
            part = row["model"].removeprefix(of.title).strip().partition("(")[0].replace("v4", "").strip()
            yield Line(
                f"{part + ', ' if part else ''}MACs {row['budget']:g}, {row['images'] or 'no'} images",
                compress(of, f"--macs {row['budget']:g}{images}", file),
                "onnx_models",
                pair(row, "parameters"),
                pair(row, "macs"),
                pair(row, "bytes"),
                (None, row["output_error"]),
                (1000 * row["dense"]["median"], row["dense"]["median"] / row["small"]["median"], "2 threads"),
                row["seconds"],
            )


def reproduced(of: Network) -> Iterator[Line]:
    """Recipes run whole: compressed and fine-tuned with labels."""
    for path in sorted((RESULTS / "reproduction").glob("*.json")):
        data = json.loads(path.read_text(encoding="utf-8"))
        changed = any(key.split(".")[-1] in ("epochs", "limit_train") for key in data["overrides"])
        name = data["recipe"]["id"]
        if name.split("-")[0] == of.model.replace(":", "/") and not changed:
            schedule = f" --schedule {data['schedule']['name']}" if data.get("schedule") else ""
            seed = data["seeds"][0]
            epochs = sum(stage["training"]["settings"]["epochs"] for stage in data["stages"])
            before, after = data["original"], data["compressed"]
            yield Line(
                f"fine-tuned, {epochs} epochs" + (f", seed {seed}" if seed else ""),
                f"tuckertree reproduce recipes/{name}.yaml{schedule} --data DATA"
                + (f" --seed {seed}" if seed else ""),
                "reproduction",
                (before["parameters"], after["parameters"]),
                (before["macs"], after["macs"]),
                score=(before["top1"], after["top1"]),
                seconds=sum(data["seconds"].values()),
            )


READERS = (budgets, detected, files, tuned, dropped, reproduced, targets, searched, quantized)
