"""Model-local functions with layers in them, put in the place of their calls by ONNX's own inliner."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from tuckertree._base.errors import TuckertreeError, first_line
from tuckertree._base.extras import require_extra
from tuckertree.network.onnx.files import OnnxFile, all_nodes, node_tensors
from tuckertree.network.onnx.inputs import Feed
from tuckertree.network.onnx.nodes import is_product
from tuckertree.network.onnx.runtime import Session

if TYPE_CHECKING:
    from onnx import FunctionProto, GraphProto, ModelProto, NodeProto

Key = tuple[str, str, str]
"""Domain, name and overload of a function."""
Functions = Mapping[Key, "FunctionProto"]
_ROUNDING = 32
"""Outputs may differ by so many units of the last place of the largest number."""


def inlined(file: OnnxFile, feed: Feed) -> OnnxFile:
    """A model whose functions with convolutions and products are part of its graph.

    Functions without any stay functions, and so do those with weights of their own that are called more than once:
    the weights would be there twice. The result is run beside the file, and must do the same. Its notes say what
    was done.

    Parameters
    ----------
    feed
        An example input.

    Raises
    ------
    TuckertreeError
        If a function calls itself.
    """
    functions = {(each.domain, each.name, each.overload): each for each in file.proto.functions}
    reached: dict[Key, Counter[Key]] = {}
    calls = _calls(file.proto.graph, functions, reached)
    busy = {key for key in calls if any(_has_product(functions[each]) for each in (key, *reached[key]))}
    kept = {key for key in busy if calls[key] > 1 and _has_weights(functions[key])}
    notes = [f"{_name(key)} stays a function: its own weights are used {calls[key]} times" for key in kept]
    left = {key[:2] for each in kept for key in (each, *reached[each])}
    chosen = sorted({key[:2] for key in busy} - left)
    if not chosen:
        return replace(file, notes=tuple(sorted(notes)))
    inliner = require_extra("onnx.inliner", extra="onnx")
    try:
        proto = inliner.inline_selected_functions(_prepared(file.proto, functions), chosen)
        for function in proto.functions:
            function.CopyFrom(functions[function.domain, function.name, function.overload])
        _check_same(Session(file.path), Session(proto.SerializeToString(), file.folder), feed)
    except Exception as error:  # the inliner's errors have no class in common but this
        return replace(file, notes=(*sorted(notes), f"functions are not inlined: {first_line(error)}"))
    notes.append(f"inlined, so that their layers can be compressed: {', '.join(map(_name, chosen))}")
    return replace(file, proto=proto, notes=tuple(sorted(notes)))


def _prepared(proto: ModelProto, functions: Functions) -> ModelProto:
    """A copy in which nothing is implied that the inliner does not see to.

    That is: calls give the attributes that have defaults, and functions import what the model imports. The checker
    has seen that the operators are the same in either version.
    """
    copy = type(proto)()
    copy.CopyFrom(proto)
    versions = {each.domain: each.version for each in copy.opset_import}
    for function in copy.functions:
        for each in function.opset_import:
            if each.domain not in versions:
                copy.opset_import.add().CopyFrom(each)
            each.version = versions.setdefault(each.domain, each.version)
    for place in (copy.graph, *copy.functions):
        for node in all_nodes(place):
            function = functions.get(_key(node))
            given = {attribute.name for attribute in node.attribute}
            for default in function.attribute_proto if function else ():
                if default.name not in given:
                    node.attribute.add().CopyFrom(default)
    return copy


def _check_same(before: Session, after: Session, feed: Feed) -> None:
    for (name, y), other in zip(before.run(feed).items(), after.run(feed).values(), strict=True):
        if not isinstance(y, np.ndarray):
            continue
        same = y.shape == other.shape
        if same and y.dtype.kind == "f":
            most = np.abs(y[np.isfinite(y)]).max(initial=0)
            eps = _ROUNDING * np.finfo(y.dtype).eps
            same = np.allclose(y, other, rtol=eps, atol=eps * most, equal_nan=True)
        elif same:
            same = np.array_equal(y, other)
        if not same:
            raise TuckertreeError(f"the output {name} would be another one")


def _calls(
    place: GraphProto | FunctionProto,
    functions: Functions,
    reached: dict[Key, Counter[Key]],
    within: tuple[Key, ...] = (),
) -> Counter[Key]:
    """How often functions are called from a place, by one another too; kept for each function in ``reached``."""
    calls = Counter[Key]()
    for key, times in Counter(map(_key, all_nodes(place))).items():
        if key not in functions:
            continue
        if key in within:
            raise TuckertreeError(f"the function {_name(key)} calls itself")
        if key not in reached:
            reached[key] = _calls(functions[key], functions, reached, (*within, key))
        calls[key] += times
        for inner, each in reached[key].items():
            calls[inner] += times * each
    return calls


def _has_product(function: FunctionProto) -> bool:
    return any(map(is_product, all_nodes(function)))


def _has_weights(function: FunctionProto) -> bool:
    """Whether a function holds a tensor that may be a weight."""
    return any(len(tensor.dims) > 1 for node in all_nodes(function) for tensor in node_tensors(node))


def _key(node: NodeProto) -> Key:
    return node.domain, node.op_type, node.overload


def _name(key: Sequence[str]) -> str:
    return ".".join(filter(None, key))
