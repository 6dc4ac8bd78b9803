"""Files of plain data, strictly read: what is unknown, missing or of another type is refused by its key."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from tuckertree._base.errors import TuckertreeError, UsageError, first_line

LARGEST_JSON = 64 * 2**20
_DEEPEST = 32
WHOLE_BITS = 63
"""Whole numbers of more bits are refused: no count of ours has them, and they cannot be made numbers to divide."""
T = TypeVar("T")
_EXPONENT = re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+")
_SAID = {bool: "true or false", int: "a whole number", float: "a number", str: "a text", NoneType: "null"}


def check_regular(path: Path) -> None:
    """Refuse what is no file with a beginning and an end: a pipe or a device would be waited for.

    Raises
    ------
    TuckertreeError
        If it is there and is no regular file.
    """
    if path.exists() and not path.is_file():
        raise TuckertreeError(f"{path} is a {'folder' if path.is_dir() else 'pipe or device'}; give a file")


def read_json(path: Path) -> Any:
    """Read a JSON file of ours.

    Raises
    ------
    TuckertreeError
        If it is no regular file, larger than any of ours, or not JSON.
    """
    return read_json_text(path)[0]


def read_json_text(path: Path) -> tuple[Any, str]:
    """Read a JSON file of ours, as :func:`read_json` does, and its text, for messages with lines."""
    check_regular(path)
    try:
        if path.stat().st_size > LARGEST_JSON:
            raise TuckertreeError(f"{path} is larger than any {path.name} of ours; refused")
        text = path.read_text(encoding="utf-8")
        return json.loads(text), text
    except (OSError, ValueError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or first_line(error)
        raise TuckertreeError(f"{path} cannot be read: {reason}") from error


def read_as(kind: type[T], data: object, key: str = "") -> T:
    """Make a dataclass of a mapping, and what its fields hold of the mapping's values.

    Parameters
    ----------
    kind
        A dataclass whose fields are ``bool``, ``int``, ``float``, ``str``, None, literals, tuples, mappings
        by text, dataclasses, or unions of these.
    data
        What a YAML or JSON file holds.
    key
        Where it stands, for messages: ``compression.energy``.

    Raises
    ------
    UsageError
        With the key: if one is unknown or missing, or its value has another type or is refused by the
        dataclass. Text is never a number, a whole number may stand for any number, none is 2^63 or more.
    """
    result: T = _convert(data, kind, key)
    return result


def number_in(value: Any) -> Any:
    """Make a number of a text such as ``1e-4``, which is one to everybody but YAML 1.1."""
    return float(value) if isinstance(value, str) and _EXPONENT.fullmatch(value) else value


def _convert(value: Any, kind: Any, key: str) -> Any:
    origin, arguments = get_origin(kind), get_args(kind)
    if kind in (Any, object):
        return _plain(value, key)
    if origin in (Union, UnionType):
        return _one_of(value, arguments, key)
    if origin is Literal:
        if value in arguments and type(value) in map(type, arguments):
            return value
        raise UsageError(f"{_at(key)}must be {_alternatives(map(str, arguments))}, not {_shown(value)}")
    if is_dataclass(kind) and isinstance(kind, type):
        return _dataclass(value, kind, key)
    if origin is tuple:
        return _tuple(value, arguments, key)
    if origin in (dict, Mapping):
        if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
            raise _wrong(value, kind, key)
        return {name: _convert(entry, arguments[1], f"{key}.{name}") for name, entry in value.items()}
    if origin in (list, Sequence):
        return _tuple(value, (arguments[0], ...), key)
    return _scalar(value, kind, key)


def _plain(value: Any, key: str, depth: int = 0) -> Any:
    """What may be anything: finite, and not so deep that it could not be written again."""
    if depth > _DEEPEST:
        raise UsageError(f"{_at(key)}is nested more than {_DEEPEST} deep")
    if isinstance(value, float) and not math.isfinite(value):
        raise UsageError(f"{_at(key)}must be finite, not {value}")
    inner = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
    for each in inner:
        _plain(each, key, depth + 1)
    return value


def _scalar(value: Any, kind: Any, key: str) -> Any:
    if kind is float:
        value = number_in(value)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value) if abs(value) < 2**53 else math.inf
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise _wrong(value, kind, key)
    if isinstance(value, float) and not math.isfinite(value):
        raise UsageError(f"{_at(key)}must be finite, not {value}")
    if isinstance(value, int) and abs(value) >> WHOLE_BITS:
        raise UsageError(f"{_at(key)}must be less than 2^{WHOLE_BITS}, not {_shown(value)}")
    return value


def _one_of(value: Any, kinds: Sequence[Any], key: str) -> Any:
    if value is None and NoneType in kinds:
        return None
    kinds = [kind for kind in kinds if kind is not NoneType]
    if len(kinds) == 1:
        return _convert(value, kinds[0], key)
    # An integer is no float where both are allowed: a rank, and an energy.
    for kind in sorted(kinds, key=lambda kind: type(value) is not kind):
        try:
            return _convert(value, kind, key)
        except UsageError:
            continue
    raise UsageError(f"{_at(key)}must be {_alternatives(_name(kind) for kind in kinds)}, not {_shown(value)}")


def _tuple(value: Any, kinds: Sequence[Any], key: str) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise UsageError(f"{_at(key)}must be a list, not {_shown(value)}")
    repeated = len(kinds) == 2 and kinds[1] is Ellipsis
    if not repeated and len(value) != len(kinds):
        raise UsageError(f"{_at(key)}must have {len(kinds)} entries, not {len(value)}")
    wanted = [kinds[0]] * len(value) if repeated else kinds
    return tuple(
        _convert(entry, kind, f"{key}.{number}")
        for number, (entry, kind) in enumerate(zip(value, wanted, strict=True))
    )


def _dataclass(value: Any, kind: Any, key: str) -> Any:
    if not isinstance(value, Mapping):
        raise UsageError(f"{_at(key)}must be a mapping of {_list(kind)}, not {_shown(value)}")
    known = {field.name: field for field in fields(kind) if field.init}
    for name in value:
        if name not in known:
            raise UsageError(f"unknown key {_path(key, name)!r}; known are {_list(kind)}")
    for name, field in known.items():
        if name not in value and field.default is MISSING and field.default_factory is MISSING:
            raise UsageError(f"the key {_path(key, name)!r} is missing")
    hints = get_type_hints(kind)
    arguments = {name: _convert(entry, hints[name], _path(key, name)) for name, entry in value.items()}
    try:
        return kind(**arguments)
    except UsageError as error:
        raise UsageError(f"{_at(key)}{error}") from error


def _wrong(value: Any, kind: Any, key: str) -> UsageError:
    return UsageError(f"{_at(key)}must be {_name(kind)}, not {_shown(value)}")


def _path(key: str, name: object) -> str:
    return f"{key}.{name}" if key else f"{name}"


def _at(key: str) -> str:
    return f"{key}: " if key else ""


def _list(kind: Any) -> str:
    return ", ".join(field.name for field in fields(kind) if field.init)


def _alternatives(names: Any) -> str:
    return " or ".join(dict.fromkeys(names))


def _name(kind: Any) -> str:
    if kind in _SAID:
        return _SAID[kind]
    if is_dataclass(kind) or get_origin(kind) in (dict, Mapping):
        return "a mapping"
    return "a list" if get_origin(kind) in (tuple, list, Sequence) else str(kind)


def _shown(value: object) -> str:
    """Say what a value is, in a few characters: YAML's aliases can make one that has billions."""
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, list | tuple | set):
        return "a list"
    if isinstance(value, int | float | str | bytes | None):
        text = repr(value) if not isinstance(value, int) or abs(value) < 10**40 else "a very large number"
        return text if len(text) <= 60 else f"{text[:56]}..."
    return f"a {type(value).__name__}"
