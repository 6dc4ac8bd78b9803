"""The page of an ONNX file; the file is read, and never run."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from tuckertree._base.errors import TuckertreeError, UsageError, first_line
from tuckertree._base.extras import require_extra
from tuckertree._base.reading import WHOLE_BITS
from tuckertree.io.onnx_record import KEY
from tuckertree.io.report import short
from tuckertree.network.onnx.files import OnnxFile, read_onnx
from tuckertree.network.onnx.graph import Graph
from tuckertree.network.onnx.nodes import is_product, macs_of, weight_place
from tuckertree.tools.html_report.content import (
    Column,
    Figure,
    Lines,
    Page,
    Plot,
    Section,
    Series,
    Strip,
    Table,
    View,
)
from tuckertree.tools.html_report.reading import open_record, with_sensitivity
from tuckertree.tools.html_report.saved import saved_page

if TYPE_CHECKING:
    from onnx import ModelProto

_SHOWN = 500
"""Characters of a text that the file gives are shown."""
_Row = tuple[str, str, str, int, int | None]


def onnx_page(path: Path, sensitivity: Path | None = None) -> Page:
    """What an ONNX file says of its layers; and of how it was made, where `compress` wrote it.

    Raises
    ------
    TuckertreeError
        If it is no ONNX model, or there is a sensitivity and it does not say how it was made.
    """
    file = read_onnx(path)
    doubts = []
    try:
        saved = open_record(path, file.proto)
    except TuckertreeError as error:
        saved = None
        doubts = [f"How it was made is in the file, and cannot be read: {str(error)[:_SHOWN]}"]
    if saved is None:
        if sensitivity is not None:
            raise UsageError(
                f"a sensitivity is shown with what compress made, which {path} does not say it is"
            )
        return _plain_page(file, doubts)
    made = saved_page(saved if sensitivity is None else with_sensitivity(saved, sensitivity))
    graph = Graph(file.proto)
    rows, _ = _layers(graph, file)
    doubts = [*made.warnings]
    if not saved.int8 and graph.parameters != saved.plan.parameters[1]:
        counts = f"{graph.parameters} parameters, and says that it was made with {saved.plan.parameters[1]}"
        doubts.insert(
            0, f"the file holds {counts}: it was changed since, and what it says may not be true of it"
        )
    return replace(
        made,
        warnings=doubts,
        origin=f"{made.origin}, as it says itself",
        figures=[*made.figures, *([] if saved.int8 else [_bytes(file)])],
        sections=[*made.sections, _table(rows), _facts(graph)],
    )


def _plain_page(file: OnnxFile, doubts: list[str]) -> Page:
    path, graph = file.path, Graph(file.proto)
    rows, note = _layers(graph, file)
    macs = [row[4] for row in rows if row[4] is not None]
    total = sum(macs) if len(macs) == len(rows) and macs else None
    verdict = f"{len(rows)} layers, {short(graph.parameters)} parameters"
    verdict += f", {short(total)} MACs" if total else ""
    return Page(
        title=path.name,
        verdict=f"{verdict}, {file.size / 1e6:.2f} MB",
        origin=f"ONNX file of {file.proto.producer_name or 'an unknown producer'} {file.proto.producer_version}".strip(),
        figures=[
            Figure("Parameters", "count", None, graph.parameters),
            *(
                [Figure("MACs", "count", None, total, note="of convolutions and matrix products")]
                if total
                else []
            ),
            _bytes(file),
        ],
        warnings=doubts,
        missing=[
            "What it was before, errors and reasons: this file does not hold them; `tuckertree compress` writes them into the "
            "files that it makes.",
            "Accuracy: `tuckertree evaluate` measures it.",
            "Latency: `tuckertree bench` measures it.",
            *([f"MACs of some layers: {note}."] if note else []),
        ],
        sections=[*_sections(rows), _table(rows), _facts(graph)],
    )


def _bytes(file: OnnxFile) -> Figure:
    return Figure("Bytes", "count", None, file.size, note="with external data")


def _layers(graph: Graph, file: OnnxFile) -> tuple[list[_Row], str]:
    """A row for each convolution and product with a constant weight; and why MACs are not known, if so."""
    shapes, note = _shapes(file.proto)
    shapes |= {name: tuple(tensor.dims) for name, tensor in graph.constants.items()}
    rows: list[_Row] = []
    for node in filter(is_product, graph.nodes):
        place = weight_place(node, graph.values)
        if place is None:
            continue
        kernel = tuple(graph.constants[node.input[place]].dims)
        weights = 1
        for size in kernel:
            weights *= size
        try:
            macs = macs_of(node, shapes)
        except (KeyError, IndexError):
            macs, note = None, note or "the sizes of its inputs are open"
        if macs is not None and macs >> WHOLE_BITS:
            macs, note = None, note or "the sizes in it are too large to be true"
        name = node.name or node.output[0]
        rows.append((name, node.op_type, "x".join(map(str, kernel)), weights, macs))
    return rows, note


def _shapes(proto: ModelProto) -> tuple[dict[str, tuple[int, ...]], str]:
    """Shapes of the values, of those that are known without running the model; an open batch is 1."""
    inference = require_extra("onnx.shape_inference", extra="onnx")
    try:
        copy = type(proto)()
        copy.CopyFrom(proto)
        for value in copy.graph.input:
            sizes = value.type.tensor_type.shape.dim
            if sizes and not sizes[0].dim_value:
                sizes[0].dim_value = 1
        inferred = inference.infer_shapes(copy)
    except Exception as error:  # whatever a damaged model makes it say
        return {}, f"its shapes cannot be inferred ({first_line(error)})"
    found = {}
    for value in (*inferred.graph.input, *inferred.graph.value_info, *inferred.graph.output):
        sizes = [size.dim_value for size in value.type.tensor_type.shape.dim]
        if sizes and all(sizes):
            found[value.name] = tuple(sizes)
    return found, ""


def _sections(rows: list[_Row]) -> list[Section]:
    if not rows:
        return []
    names = [row[0] for row in rows]
    columns: dict[Column, list[int | None]] = {
        Column("MACs", "count"): [row[4] for row in rows],
        Column("parameters", "count"): [row[3] for row in rows],
    }
    shown = {column: values for column, values in columns.items() if any(v is not None for v in values)}
    widths = [float(row[3] if row[4] is None else row[4]) for row in rows]
    strip = Strip(
        "Layers in the order of the file",
        list(shown),
        names,
        widths,
        list(shown.values()),
        [f"{kind} {kernel}" for _, kind, kernel, _, _ in rows],
    )
    views = [View(c.label, c, [Series("this file", values, names=names)]) for c, values in shown.items()]
    bars = Plot("What each layer costs", "bars", Column("layer"), views)
    return [Section("network", "The network", "Choose a layer to see what it is.", [strip, bars])]


def _table(rows: list[_Row]) -> Section:
    columns = [
        Column("layer"),
        Column("operator"),
        Column("weight"),
        Column("parameters", "count"),
        Column("MACs", "count"),
    ]
    table = Table("Convolutions and matrix products with constant weights", columns, rows, search=True)
    return Section("layers", "Layers", "", [table.filled() if rows else table])


def _facts(graph: Graph) -> Section:
    proto = graph.proto
    kinds = Counter(node.op_type for node in graph.nodes)
    facts = [
        f"opset: {graph.opset}",
        f"IR version: {proto.ir_version}",
        f"producer: {proto.producer_name} {proto.producer_version}",
        *(
            f"metadata {entry.key}: {entry.value[:_SHOWN]}"
            for entry in proto.metadata_props
            if entry.key != KEY
        ),
        f"inputs: {', '.join(graph.inputs)}",
        f"outputs: {', '.join(graph.outputs)}",
        *(f"{kind}: {count} nodes" for kind, count in kinds.most_common()),
    ]
    return Section("file", "The file", "", [Lines(facts)])
