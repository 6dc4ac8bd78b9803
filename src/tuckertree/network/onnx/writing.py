"""Writing an ONNX file, with its external data if it needs any, whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from tuckertree._base.atomic import alone_in, folder_beside
from tuckertree._base.errors import TuckertreeError, UsageError, argument
from tuckertree._base.extras import require_extra
from tuckertree.network.onnx.files import LARGEST, OnnxFile, all_tensors, findings, is_external, place_of

if TYPE_CHECKING:
    from onnx import ModelProto, TensorProto

_SMALL = 1024
"""Tensors of fewer bytes stay in the message, as they do in other tools."""
_BLOCK = 2**24


def check_onnx_output(path: Path, source: Path, *, overwrite: bool) -> None:
    """Refuse an output that may not be written, before any work is done for it.

    Raises
    ------
    UsageError
        If it does not end in ``.onnx``.
    TuckertreeError
        If it is the input, or exists and may not be replaced.
    """
    if path.suffix.lower() != ".onnx":
        raise UsageError(f"{path} does not end in .onnx; an ONNX model is saved as an ONNX file")
    for file in (path, data_file(path)):
        if file.is_dir() or file.is_symlink():
            raise TuckertreeError(f"{file} exists and is not a file; choose another output")
    if path.exists() and source.exists() and path.samefile(source):
        raise TuckertreeError(f"{path} is the model itself; choose another output")
    if not overwrite and (path.exists() or data_file(path).exists()):
        raise TuckertreeError(f"{path} exists already; choose another output or pass {argument('overwrite')}")


def data_file(path: Path) -> Path:
    """Where the external data of an output lie, if it has any."""
    return path.with_name(path.name + ".data")


@contextmanager
def written(path: Path, proto: ModelProto, source: OnnxFile, *, overwrite: bool) -> Iterator[Path]:
    """Write a model to a file beside ``path`` that becomes ``path`` when the block ends without an error.

    Weights go into ``path`` with ``.data`` added where the source had external data, or the message would be
    too large; the message given is changed then.

    Raises
    ------
    TuckertreeError
        As :func:`check_onnx_output`, or if nothing can be written there, or the checker finds fault.
    """
    check_onnx_output(path, source.path, overwrite=overwrite)
    with folder_beside(path) as workshop:
        new, data = workshop / path.name, data_file(workshop / path.name)
        if source.external or proto.ByteSize() > LARGEST:
            with data.open("wb") as stream:
                _move_out(proto, source, stream, data.name)
        new.write_bytes(proto.SerializeToString())
        _check(new, path)
        yield new
        with alone_in(path.parent):
            check_onnx_output(path, source.path, overwrite=overwrite)  # another program may have been first
            if data.exists() or data_file(path).exists():
                # Whenever this is cut short, no model stands beside another one's data.
                path.unlink(missing_ok=True)
                data_file(path).unlink(missing_ok=True)
            if data.exists():
                data.replace(data_file(path))
            new.replace(path)


def _check(new: Path, path: Path) -> None:
    checker = require_extra("onnx.checker", extra="onnx")
    try:
        checker.check_model(str(new))
    except Exception as error:
        raise TuckertreeError(f"{path} would not be a valid ONNX model: {findings(error)}") from error


def _move_out(proto: ModelProto, source: OnnxFile, stream: BinaryIO, name: str) -> None:
    """Put external tensors, and large initializers that are in the message, in one file."""
    for tensor in all_tensors(proto):
        if is_external(tensor):
            file, offset, length = place_of(tensor, source.path)
            start = _align(stream)
            _copy(file, offset, length, stream)
            _point(tensor, name, start, length)
    for tensor in proto.graph.initializer:
        if len(tensor.raw_data) >= _SMALL:
            start, length = _align(stream), len(tensor.raw_data)
            stream.write(tensor.raw_data)
            tensor.ClearField("raw_data")
            _point(tensor, name, start, length)


def _point(tensor: TensorProto, location: str, offset: int, length: int) -> None:
    tensor.data_location = type(tensor).EXTERNAL
    del tensor.external_data[:]
    for key, value in (("location", location), ("offset", offset), ("length", length)):
        tensor.external_data.add(key=key, value=str(value))


def _align(stream: BinaryIO) -> int:
    """Go on at a multiple of 4,096, where a tensor can be mapped into memory."""
    stream.write(bytes(-stream.tell() % 4096))
    return stream.tell()


def _copy(file: Path, offset: int, length: int, stream: BinaryIO) -> None:
    with file.open("rb") as origin:
        origin.seek(offset, os.SEEK_SET)
        left = length
        while left:
            block = origin.read(min(left, _BLOCK))
            if not block:
                raise TuckertreeError(f"{file} became shorter while it was read")
            stream.write(block)
            left -= len(block)
