"""What a saved folder keeps beside its network, in an ONNX file: one property of its metadata, which no runtime looks at."""

from __future__ import annotations

import base64
import binascii
import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tuckertree._base.errors import TuckertreeError, UsageError, first_line
from tuckertree._base.reading import read_as
from tuckertree._base.version import __version__
from tuckertree.measure import environment
from tuckertree.planning import Plan

if TYPE_CHECKING:
    from onnx import ModelProto

KEY = "tuckertree"
"""Name of the property. Its value is JSON in zlib in base64: as JSON alone it would be 2 % of a small network's file."""
_FORMAT = 1
_LARGEST = 16 * 2**20
"""Bytes of JSON; more is neither written nor read."""


@dataclass(frozen=True)
class OnnxRecord:
    """What an ONNX file says of how it was made.

    Attributes
    ----------
    format
        Version of this record.
    tuckertree
        Version of the tool that wrote it.
    name
        Of the file that was compressed.
    plan
        The plan that was applied.
    report
        What was measured, as ``report.json`` of a saved folder.
    """

    format: int
    tuckertree: str
    name: str
    plan: Plan
    report: Mapping[str, Any]


def write_record(proto: ModelProto, name: str, plan: Plan, report: Mapping[str, object]) -> None:
    """Put a record into a model, in the place of one that is there; one that would be too large is left out."""
    drop_record(proto)
    data = {
        "format": _FORMAT,
        "tuckertree": __version__,
        "name": name,
        "plan": plan.to_json(),
        "report": {**report, "environment": environment()},
    }
    text = json.dumps(data, separators=(",", ":")).encode()
    if len(text) <= _LARGEST:
        proto.metadata_props.add(key=KEY, value=base64.b64encode(zlib.compress(text, 9)).decode())


def drop_record(proto: ModelProto) -> None:
    """Take the record out of a model, as of one that is compressed again."""
    for place in reversed([n for n, entry in enumerate(proto.metadata_props) if entry.key == KEY]):
        del proto.metadata_props[place]


def read_record(proto: ModelProto) -> OnnxRecord | None:
    """Read the record of a model, trusting none of it; None if there is none.

    Raises
    ------
    TuckertreeError
        If it is damaged, too large, of another format, or a field is missing, unknown or of the wrong type.
    """
    found = next((entry.value for entry in proto.metadata_props if entry.key == KEY), None)
    if found is None:
        return None
    try:
        data = json.loads(_unpacked(found))
    except (ValueError, RecursionError, zlib.error) as error:
        raise TuckertreeError(f"its record is damaged: {first_line(error)}") from error
    if not isinstance(data, dict) or data.get("format") != _FORMAT:
        raise TuckertreeError(
            f"its record is not of format {_FORMAT}, which this tuckertree {__version__} reads"
        )
    try:
        return read_as(OnnxRecord, data)
    except UsageError as error:  # nobody typed it
        raise TuckertreeError(f"its record is damaged: {error}") from error


def _unpacked(text: str) -> bytes:
    """The JSON, of which no more is unpacked than may be there."""
    if len(text) > _LARGEST:
        raise ValueError("it is larger than any of ours")
    unpacking = zlib.decompressobj()
    try:
        data = unpacking.decompress(base64.b64decode(text, validate=True), _LARGEST)
    except binascii.Error as error:
        raise ValueError(f"it is not base64: {error}") from error
    if not unpacking.eof:
        raise ValueError("it is truncated, or larger than any of ours")
    return data
