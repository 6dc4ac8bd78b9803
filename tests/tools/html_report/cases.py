"""Results to be shown, made in no time."""

import json
import re
from dataclasses import asdict, replace
from html.parser import HTMLParser

import torch

import tuckertree as tt
from tests.tools.comparison.cases import tiny
from tuckertree.calibration import Tuning
from tuckertree.compression import DistanceByLayer, LayerSensitivity, Rise, Sensitivity
from tuckertree.compression.accuracy.loss import Loss
from tuckertree.compression.accuracy.record import AccuracySearch, AccuracyStep
from tuckertree.compression.int8 import InPrecision, Int8Network
from tuckertree.io.export.mixed import Int8Layers
from tuckertree.planning import Latency
from tuckertree.tools.comparison.cells import Outcome, Score
from tuckertree.tools.html_report.making import page_of

HOSTILE = "</script><img src=x onerror=\"document.title='run'\"><!--<script>`${alert(1)}` & \u2028 <b>"
COMMAND = "tuckertree compress tiny --macs 0.5 -o small"


def saved(path, rule=None, methods=None, **report):
    """A saved folder with more in its report."""
    options = {} if methods is None else {"methods": methods}
    result = tt.compress(tiny(), torch.zeros(1, 3, 32, 32), rule or tt.Budget(macs=0.5), **options)
    return result.save(path, report={"commands": [COMMAND], **report})


def accuracy(lost=0.5, held=True):
    """A search that tried two networks and proved one."""

    def loss(points):
        return Loss("top1", points, points - 0.5, points + 0.5, 0.25, 500, (91.7, 91.7 - points))

    def step(share, points):
        return AccuracyStep(
            share, (1000, int(1000 * share)), (9000, int(9000 * share)), loss(points), points < 1
        )

    proof = AccuracyStep(0.5, (1000, 500), (9000, 4500), loss(lost), held)
    steps = (step(0.25, 4.0), step(0.5, 0.5), AccuracyStep(0.125))
    return AccuracySearch(1.0, "macs", steps, (proof,), 10).to_json()


def tuning():
    """What tuning did."""
    course = ((10, 0.5), (20, 0.125), (30, None))
    return Tuning(30, 20, 4.0, 0.25, 0.125, 64, 16, 8, 0, course=course).to_json()


def training(**more):
    """A run of three epochs."""
    history = [
        {"epoch": n, "learning_rate": 0.1 / n, "train_loss": 1.0 / n, "validation_top1": 80.0 + n}
        for n in (1, 2, 3)
    ]
    record = {"settings": {"seed": 3, "lr": 0.1}, "data": "images", "distilled": True, "diverged": False}
    return {**record, "seconds": 3.0, "history": history, "versions": {"torch": "2"}, **more}


def by_layer(plan):
    """Where the distance comes from."""
    names = [layer.name for layer in plan.compressed]
    return DistanceByLayer(tuple(Rise((name,), 0.1, 1 / len(names)) for name in names), 8).to_json()


def sensitivity():
    """What each layer costs alone."""
    layers = [
        LayerSensitivity(str(n), "conv2d", (8, 8, 3, 3), 1, "svd", (2,), (64, 32), 0.1 * n, 0.9)
        for n in (1, 2)
    ]
    return Sensitivity(tuple(layers), 2.0, 16).to_json()


def latency():
    """A measured latency."""
    return Latency("torch 2", 2, 1, 0.004, 0.5, 0.5, 0.5, 0.49, 0.52, 1)


def quantized(path, fp32=(), **report):
    """A saved folder of a network in 8 bits but for some layers, whose file is not looked at."""
    folder = saved(path)
    config = json.loads((folder / "config.json").read_text())
    names = [layer["name"] for layer in config["plan"]["layers"]]
    for layer in config["plan"]["layers"]:
        layer["precision"] = "fp32" if layer["name"] in fp32 else "int8"
    config["plan"]["latency"] = replace(latency(), precision="int8").to_json()
    (folder / "config.json").write_text(json.dumps({**config, "int8": "int8.onnx"}))
    layers = Int8Layers(tuple(names), tuple(fp32), 0.02, 0.2, dict.fromkeys(names, 0.01))
    tried = InPrecision("int8", 0.5, kept=True, distance=0.04), InPrecision("fp32", 1.0, kept=False)
    more = {
        "int8": Int8Network(b"0123", 16, 0.1, 0.04, layers).summary(),
        "precisions": [asdict(each) for each in tried],
        **report,
    }
    known = json.loads((folder / "report.json").read_text())
    (folder / "report.json").write_text(json.dumps({**known, **more}))
    return folder


def rename(folder, old, new):
    """Call a layer of a saved folder something else, wherever it is named."""
    for name in ("config.json", "report.json"):
        file = folder / name
        text = file.read_text()
        file.write_text(text.replace(json.dumps(old), json.dumps(new)))


def comparison(path, outcomes):
    """A folder of compare with some outcomes."""
    (path / "cells").mkdir(parents=True)
    methods = [each.method for each in outcomes if each.method != "dense"]
    marker = {"format": 1, "settings": {"model": "net"}, "methods": methods, "budgets": ["2x"]}
    (path / "comparison.json").write_text(json.dumps(marker))
    for each in outcomes:
        name = "dense" if each.method == "dense" else f"{each.method}-{each.budget}"
        (path / "cells" / f"{name}.json").write_text(json.dumps(asdict(each)))
    return path


def outcomes():
    """The original, a good network, a bad one and one that could not be made."""
    score = Score(100, 90.0, 85.0, 95.0)
    first = Outcome("dense", "1x", parameters=100, macs=1000, score=score)
    good = replace(
        first, method="svd", budget="2x", parameters=50, macs=500, score=Score(100, 89.0, 84.0, 94.0)
    )
    bad = replace(good, method="cp", macs=499, score=Score(100, 70.0, 65.0, 75.0), warnings=("doubtful",))
    return [first, good, bad, Outcome("ht2", "2x", failed="cannot reach it", unreachable=True)]


class _Page(HTMLParser):
    def __init__(self):
        super().__init__()
        self.scripts, self.tags, self.attributes, self.titles, self._script = [], [], [], [], None

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, *each) for each in attrs]
        if tag == "script":
            self._script = dict(attrs)

    def handle_data(self, data):
        if self.tags[-1:] == ["title"] and data.strip():
            self.titles.append(data)
        if self._script is not None:
            self.scripts.append((self._script, data))
            self._script = None


def read(path):
    """Elements of a written page, and the data in it."""
    page = _Page()
    page.feed(path.read_text(encoding="utf-8"))
    page.data = json.loads(next(text for how, text in page.scripts if how.get("id") == "data"))
    return page


def section(data, name):
    """A section of a page's data."""
    return next(each for each in data["sections"] if each["id"] == name)


def shown(path):
    """The data of a result's page."""
    return page_of(path).to_json()


def policy(page):
    """The Content-Security-Policy of a page."""
    text = next(
        value
        for tag, name, value in page.attributes
        if (tag, name) == ("meta", "content") and "default-src" in value
    )
    return {part.split()[0]: part.split()[1:] for part in re.split("; ?", text)}
