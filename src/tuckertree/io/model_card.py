"""The page that the Hugging Face hub shows for a saved folder: figures of its plan and report, and how to load it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping

from tuckertree._base.errors import printable
from tuckertree.io.folder import SavedConfig
from tuckertree.io.report import short
from tuckertree.planning import DENSE, Plan

_CLASSIFIERS = ("cifar10:", "caffe:", "timm:")


def model_card(
    repository: str,
    config: SavedConfig,
    report: Mapping[str, object],
    *,
    base_model: str | None = None,
    license: str | None = None,  # noqa: A002  (the hub's word)
) -> str:
    """Write the card of a saved folder, as Markdown with what the hub reads in front.

    Parameters
    ----------
    repository, base_model, license
        Checked names: ``owner/name``, ``owner/name`` of the network it was made from, ``apache-2.0``.
    report
        What ``report.json`` says. It is quoted where it is numbers, and passed over where it is anything else.
    """
    source = None if config.architecture is None else str(config.architecture)
    known = source is not None and source.startswith(_CLASSIFIERS)
    front = [
        "library_name: tuckertree",
        *([] if license is None else [f"license: {json.dumps(license)}"]),
        *([] if base_model is None else [f"base_model: {json.dumps(base_model)}"]),
        *(["pipeline_tag: image-classification"] if known else []),
        "tags:\n- tuckertree\n- low-rank\n- model-compression",
    ]
    named = "a network" if source is None else code(source)
    made = f"{named[:1].upper()}{named[1:]}, compressed with tuckertree {code(config.tuckertree)}."
    return "\n".join(
        [
            *("---", *front, "---", ""),
            f"# {repository.partition('/')[2].replace('_', chr(92) + '_')}",
            "",
            made,
            "",
            *_figures(config.plan, report),
            "",
            *_methods(config.plan),
            "## Load it",
            "",
            "```python",
            *_loading(repository, source),
            "```",
            "",
            "The weights are a safetensors file and the plan is JSON: nothing is unpickled, and no code is fetched.",
            *(
                []
                if license
                else ["", "The license is that of the network it was made from, which is not said here."]
            ),
            "",
        ]
    )


def code(text: str) -> str:
    """Text as Markdown shows it letter by letter: in one line, between marks that it does not hold."""
    plain = printable(text)
    marks = "`" * (max((len(run) for run in _runs(plain)), default=0) + 1)
    gap = " " if plain.startswith("`") or plain.endswith("`") or not plain else ""
    return f"{marks}{gap}{plain}{gap}{marks}"


def _runs(text: str) -> list[str]:
    return "".join(sign if sign == "`" else " " for sign in text).split()


def _figures(plan: Plan, report: Mapping[str, object]) -> list[str]:
    rows = [("parameters", *map(short, plan.parameters)), ("MACs", *map(short, plan.macs))]
    before, after = _top1(report.get("original")), _top1(report.get("compressed"))
    if before is not None and after is not None:
        rows.append(("top-1", f"{before:.2f} %", f"{after:.2f} %"))
    lines = ["| | original | this |", "|---|---|---|", *(f"| {name} | {a} | {b} |" for name, a, b in rows)]
    if plan.latency is not None:
        found = plan.latency
        lines += [
            "",
            f"{1 / found.measured:.2f} times faster, as measured on {code(found.runtime)} with {found.threads} threads at "
            f"batch {found.batch}, where it was made.",
        ]
    return lines


def _top1(said: object) -> float | None:
    value = said.get("top1") if isinstance(said, Mapping) else None
    return float(value) if isinstance(value, int | float) and 0 <= value <= 100 else None


def _methods(plan: Plan) -> list[str]:
    counts = Counter(layer.method for layer in plan.layers if layer.method != DENSE)
    said = [f"{count} by {code(method)}" for method, count in sorted(counts.items())]
    fewer = sum(layer.method == DENSE and layer.parameters[0] != layer.parameters[1] for layer in plan.layers)
    said += [f"{fewer} with fewer hidden channels"] if fewer else []
    return [f"Layers: {', '.join(said)}; {len(plan.layers)} in all.", ""] if said else []


def _loading(repository: str, source: str | None) -> list[str]:
    given = "" if source is not None else ", into=model"
    built = (
        []
        if source is not None
        else ["model = ...  # the network it was made from; its weights do not matter"]
    )
    return ["import tuckertree as tt", "", *built, f'model = tt.load("hf-hub:{repository}"{given})']
