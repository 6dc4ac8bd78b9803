"""A detector, compressed as the ONNX file it is: mean average precision beside its work.

YOLOX-nano of 416 x 416 on images of COCO: every other image calibrates, without its boxes, and the rest are scored
with pycocotools (`pip install pycocotools`). Budgets of MACs.

    python benchmarks/detection.py yolox_nano.onnx COCO --output docs/results

COCO is a folder of images with `instances.json` in COCO's format.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

import tuckertree as tt
from merging import Row, merged, write_report
from tuckertree.measure import environment
from tuckertree.network.onnx.runtime import Session

SIZE, STRIDES = 416, (8, 16, 32)
PADDING, OVERLAP, LEAST, MOST = 114, 0.65, 1e-3, 300
Array = np.ndarray[Any, Any]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("coco", type=Path)
    parser.add_argument("--shares", nargs="+", type=float, default=[0.8, 0.6], help="budgets of MACs")
    parser.add_argument("--objectives", nargs="+", default=["outputs", "moments"])
    parser.add_argument("--round-to", type=int, default=1, help="ranks are multiples of this")
    parser.add_argument("--tune", type=int, help="steps of tuning afterwards")
    parser.add_argument("--output", type=Path, help="folder for detection.json and .md")
    options = parser.parse_args()
    calibration, images = halves(options.coco)
    rows: list[Row] = [{"budget": 1.0, "objective": "", **scored(options.model, options.coco, images)}]
    with tempfile.TemporaryDirectory() as folder:
        for share in options.shares:
            for objective in options.objectives:
                small = Path(folder) / f"{share}-{objective}.onnx"
                started = time.perf_counter()
                result = tt.compress(
                    options.model,
                    None,
                    tt.Budget(macs=share),
                    calibration=calibration,
                    objective=objective,
                    round_to=options.round_to,
                    tune=options.tune,
                    progress=False,
                )
                result.save(small)
                rows.append(
                    {
                        "budget": share,
                        "objective": objective,
                        "parameters": list(result.plan.parameters),
                        "macs": list(result.plan.macs),
                        "seconds": round(time.perf_counter() - started, 1),
                        "images": len(calibration),
                        "tuned": None if result.tuning is None else result.tuning.steps,
                        **scored(small, options.coco, images),
                    }
                )
                print(json.dumps(rows[-1]), flush=True)
                if options.output:
                    write(rows, options.output)
    print(markdown(rows))


def halves(coco: Path, limit: int | None = None) -> tuple[torch.Tensor, list[dict[str, Any]]]:
    """Every other image as the model takes it, to fit to; and what COCO says of the others, at most so many of each."""
    truth = json.loads((coco / "instances.json").read_text(encoding="utf-8"))
    images = sorted(truth["images"], key=lambda image: int(image["id"]))
    seen, unseen = images[::2][:limit], images[1::2][:limit]
    return torch.from_numpy(np.stack([letterboxed(coco / x["file_name"])[0] for x in seen])), unseen


def letterboxed(path: Path) -> tuple[Array, float]:
    """An image ``[3, 416, 416]`` as the model takes it, BGR from 0 to 255 in the top left, and its scale."""
    picture = Image.open(path).convert("RGB")
    scale = min(SIZE / picture.height, SIZE / picture.width)
    size = round(picture.width * scale), round(picture.height * scale)
    whole = np.full((SIZE, SIZE, 3), PADDING, np.float32)
    whole[: size[1], : size[0]] = np.asarray(picture.resize(size, Image.Resampling.BILINEAR))[..., ::-1]
    return whole.transpose(2, 0, 1).copy(), scale


def decoded(output: Array) -> tuple[Array, Array]:
    """Boxes ``[n, 4]`` (left, top, right, bottom) and scores ``[n, classes]`` of an output ``[n, 5 + classes]``."""
    grids, steps = [], []
    for stride in STRIDES:
        side = SIZE // stride
        y, x = np.meshgrid(np.arange(side), np.arange(side), indexing="ij")
        grids.append(np.stack([x, y], -1).reshape(-1, 2))
        steps.append(np.full((side * side, 1), stride))
    grid, step = np.concatenate(grids), np.concatenate(steps)
    centre, size = (output[:, :2] + grid) * step, np.exp(output[:, 2:4]) * step
    return np.concatenate([centre - size / 2, centre + size / 2], 1), output[:, 4:5] * output[:, 5:]


def chosen(boxes: Array, scores: Array) -> list[tuple[int, int]]:
    """Boxes and classes that stay when of those that overlap only the best of a class does."""
    from torchvision.ops import batched_nms

    places, classes = np.nonzero(scores > LEAST)
    found = torch.from_numpy(scores[places, classes])
    kept = batched_nms(torch.from_numpy(boxes[places]).float(), found, torch.from_numpy(classes), OVERLAP)
    return [(int(places[k]), int(classes[k])) for k in kept[:MOST].tolist()]


def scored(model: Path, coco: Path, images: list[dict[str, Any]]) -> dict[str, float]:
    """Mean average precision over IoU .5 to .95, and at .5, in percent."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    session = Session(model)
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(coco / "instances.json"))
        categories = sorted(truth.getCatIds())
        found = []
        for image in images:
            x, scale = letterboxed(coco / image["file_name"])
            (output,) = session.run({"images": x[None]}).values()
            boxes, scores = decoded(output[0])
            for place, kind in chosen(boxes, scores):
                left, top, right, bottom = (boxes[place] / scale).tolist()
                found.append(
                    {
                        "image_id": image["id"],
                        "category_id": categories[kind],
                        "bbox": [left, top, right - left, bottom - top],
                        "score": float(scores[place, kind]),
                    }
                )
        if not found:
            return {"map": 0.0, "ap50": 0.0}
        judged = COCOeval(truth, truth.loadRes(found), "bbox")
        judged.params.imgIds = [image["id"] for image in images]
        judged.evaluate()
        judged.accumulate()
        judged.summarize()
    return {"map": round(100 * float(judged.stats[0]), 2), "ap50": round(100 * float(judged.stats[1]), 2)}


def write(rows: list[Row], folder: Path) -> None:
    every = merged(folder / "detection.json", "results", rows, ("budget", "objective", "tuned"))
    write_report(folder, "detection", {"environment": environment(), "results": every}, markdown(every))


def markdown(rows: list[Row]) -> str:
    found = environment()
    lines = [
        "# A detector, compressed as the ONNX file it is",
        "",
        "YOLOX-nano (Megvii, Apache-2.0) on images of COCO val2017: every other image calibrates, without its boxes; the",
        "rest are scored. Tuned for so many steps where there is a number. Measured by",
        "`python benchmarks/detection.py yolox_nano.onnx COCO --output docs/results`, and with `--tune STEPS`;",
        f"tuckertree {found['tuckertree']}, torch {found['torch']}, {found['processor']}.",
        "",
        "| MACs asked | objective | tuned | parameters | MACs | mAP | AP50 |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        less = [f"{row[k][0] / row[k][1]:.2f}x" if k in row else "" for k in ("parameters", "macs")]
        name, tuned = row["objective"] or "dense", row.get("tuned") or ""
        lines.append(
            f"| {row['budget']:g} | {name} | {tuned} | {less[0]} | {less[1]} | {row['map']:.1f} | {row['ap50']:.1f} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
