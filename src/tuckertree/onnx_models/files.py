"""ONNX files: read with care, written whole or not at all.

A file is kept as the message it is (``ModelProto``), so what is not changed is written byte for byte as it was.
Weights in files of their own (external data) stay there until they are needed.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from tuckertree.errors import TuckertreeError, UsageError
from tuckertree.extras import require_extra

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto, TensorProto

_LARGEST = 2**31 - 2**20
"""More than this cannot be one message; a little is kept for what is not weights."""
_SMALL = 1024
"""Tensors of fewer bytes stay in the message, as they do in other tools."""
_BLOCK = 2**24


@dataclass(frozen=True)
class OnnxFile:
    """A checked ONNX file.

    Attributes
    ----------
    path
        Where it is.
    proto
        Its message; tensors of external data hold their place in a file and no values.
    external
        Whether it has external data.
    """

    path: Path
    proto: ModelProto
    external: bool

    @property
    def folder(self) -> Path:
        """The folder that external data lie in."""
        return self.path.absolute().parent

    @property
    def size(self) -> int:
        """Bytes of the model with its external data."""
        tensors = [tensor for tensor in all_tensors(self.proto) if is_external(tensor)]
        places = {place_of(tensor, self.path) for tensor in tensors}
        return self.path.stat().st_size + sum(length for _, _, length in places)

    def array(self, tensor: TensorProto) -> np.ndarray[Any, Any]:
        """Values of a tensor, wherever they are.

        Raises
        ------
        TuckertreeError
            If its values are not as many as its shape says.
        """
        numpy_helper = require_extra("onnx.numpy_helper", extra="onnx")
        try:
            array: np.ndarray[Any, Any] = numpy_helper.to_array(tensor, str(self.folder))
        except Exception as error:  # damaged tensors make numpy and onnx complain in many ways
            raise TuckertreeError(
                f"{self.path}: the tensor {tensor.name!r} cannot be read: {first_line(error)}"
            ) from error
        return array


def read_onnx(path: str | Path) -> OnnxFile:
    """Read an ONNX file and check it.

    Raises
    ------
    TuckertreeError
        If the file is missing, no ONNX model or a damaged one, or its external data are missing, too short, or
        outside the model's folder.
    """
    onnx, path = require_extra("onnx", extra="onnx"), Path(path)
    checker = require_extra("onnx.checker", extra="onnx")
    message = require_extra("google.protobuf.message", extra="onnx")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise TuckertreeError(f"{path} cannot be read: {error.strerror or error}") from error
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(content)
    except message.DecodeError as error:
        raise TuckertreeError(f"{path} is not an ONNX model, or a truncated one") from error
    if not proto.HasField("graph") or not proto.ir_version:
        raise TuckertreeError(f"{path} is not an ONNX model, or a truncated one")
    external = [tensor for tensor in all_tensors(proto) if is_external(tensor)]
    for tensor in external:
        place_of(tensor, path)
    try:
        checker.check_model(str(path))
    except Exception as error:  # the checker's errors have no common class of their own
        raise TuckertreeError(f"{path} is not a valid ONNX model: {_findings(error)}") from error
    return OnnxFile(path, proto, bool(external))


def is_external(tensor: TensorProto) -> bool:
    """Whether a tensor's values lie in another file."""
    return tensor.data_location == type(tensor).EXTERNAL


def place_of(tensor: TensorProto, path: Path) -> tuple[Path, int, int]:
    """File, offset and length of an external tensor of the model at ``path``.

    Raises
    ------
    TuckertreeError
        If the place is outside the model's folder, or not there.
    """
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location, where = entries.get("location", ""), f"{path}: the tensor {tensor.name!r}"
    folder = path.absolute().parent.resolve()
    file = (folder / location).resolve()
    if (
        not location
        or Path(location).is_absolute()
        or ".." in Path(location).parts
        or folder not in file.parents
    ):
        raise TuckertreeError(f"{where} points to {location!r}, outside the model's folder; that is refused")
    if not file.is_file():
        raise TuckertreeError(f"{where} is in {location!r}, which is missing; put it beside the model")
    size = file.stat().st_size
    try:
        offset = int(entries.get("offset", 0))
        length = int(entries.get("length", size - offset))
    except ValueError as error:
        raise TuckertreeError(f"{where} has an offset or a length that is no number") from error
    if offset < 0 or length < 0 or offset + length > size:
        raise TuckertreeError(f"{where} ends beyond the end of {location!r}; that file is truncated")
    return file, offset, length


def all_tensors(proto: ModelProto) -> Iterator[TensorProto]:
    """Every tensor of a model: initializers and attributes, in subgraphs and functions too."""
    yield from _graph_tensors(proto.graph)
    for function in proto.functions:
        for node in function.node:
            yield from _node_tensors(node)


def subgraphs(node: NodeProto) -> Iterator[GraphProto]:
    """Graphs that a node holds: the branches of an If, the body of a Loop."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def _graph_tensors(graph: GraphProto) -> Iterator[TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for node in graph.node:
        yield from _node_tensors(node)


def _node_tensors(node: NodeProto) -> Iterator[TensorProto]:
    for attribute in node.attribute:
        if attribute.HasField("t"):
            yield attribute.t
        yield from attribute.tensors
    for graph in subgraphs(node):
        yield from _graph_tensors(graph)


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
    if path.is_dir() or path.is_symlink():
        raise TuckertreeError(f"{path} exists and is not a file; choose another output")
    if path.exists() and source.exists() and path.samefile(source):
        raise TuckertreeError(f"{path} is the model itself; choose another output")
    if not overwrite and (path.exists() or data_file(path).exists()):
        raise TuckertreeError(f"{path} exists already; choose another output or pass --overwrite")


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
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        workshop = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    except OSError as error:
        raise TuckertreeError(f"cannot write {path}: {error.strerror or error}") from error
    try:
        new, data = workshop / path.name, data_file(workshop / path.name)
        if source.external or proto.ByteSize() > _LARGEST:
            with data.open("wb") as stream:
                _move_out(proto, source, stream, data.name)
        new.write_bytes(proto.SerializeToString())
        _check(new, path)
        yield new
        # Whenever this is cut short, no model stands beside another one's data.
        path.unlink(missing_ok=True)
        data_file(path).unlink(missing_ok=True)
        if data.exists():
            data.replace(data_file(path))
        new.replace(path)
    except OSError as error:
        raise TuckertreeError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(workshop, ignore_errors=True)


def _check(new: Path, path: Path) -> None:
    checker = require_extra("onnx.checker", extra="onnx")
    try:
        checker.check_model(str(new))
    except Exception as error:
        raise TuckertreeError(f"{path} would not be a valid ONNX model: {_findings(error)}") from error


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


def _findings(error: Exception) -> str:
    """What the checker found, with the node where it found it, in one line."""
    return "; ".join(line.removeprefix("==> ") for line in str(error).splitlines() if line.strip())


def first_line(error: BaseException) -> str:
    """First line of an error's message that says something, without the class name that protobuf puts first."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
