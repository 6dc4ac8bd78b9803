"""The saved folder: a config, tensors and a report; nothing in it is ever executed or unpickled."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from tuckertree._base.atomic import Kind, atomic_folder, check_free
from tuckertree._base.errors import TuckertreeError, UsageError, advice
from tuckertree._base.names import UntrustedName
from tuckertree._base.reading import check_regular, read_as, read_json
from tuckertree._base.version import __version__
from tuckertree.io.sizes import Size, read_size
from tuckertree.io.tensors import load_tensors, save_tensors
from tuckertree.latency import fuse_as_planned, is_int8
from tuckertree.measure import environment
from tuckertree.network.surgery import build_structure
from tuckertree.planning import Plan

FORMAT = 1
CONFIG, TENSORS, REPORT = "config.json", "model.safetensors", "report.json"
QUANTIZED = "int8.onnx"
FILES = (CONFIG, TENSORS, REPORT, QUANTIZED)
"""All that a saved folder is made of."""
SAVED = Kind(
    CONFIG,
    {"format": int, "tuckertree": str},
    frozenset({*FILES, "logs"}),  # logs: of finetune
)


@dataclass(frozen=True)
class SavedConfig:
    """What ``config.json`` says.

    Attributes
    ----------
    format
        Version of the folder's format.
    tuckertree
        Version of the tool that wrote it.
    architecture
        Name of the dense architecture (``torchvision:resnet18``), or None if only the caller can build it.
    tensors
        Name of the safetensors file in the folder.
    plan
        The plan that was applied.
    input_size
        Size of the inputs it was compressed with; None in folders that do not say.
    int8
        Name of the ONNX file in 8 bits that the network was measured as, or None.
    """

    format: int
    tuckertree: str
    architecture: UntrustedName | None
    tensors: str
    plan: Plan
    input_size: Size | None = None
    int8: str | None = None


@dataclass(frozen=True)
class _Config:
    """``config.json`` as it is written."""

    format: int
    tuckertree: str
    architecture: str | None
    tensors: str
    plan: Plan
    input_size: object = None
    int8: str | None = None


def save_folder(
    path: str | Path,
    model: nn.Module,
    plan: Plan,
    *,
    architecture: str | None,
    report: Mapping[str, object],
    input_size: Size | None = None,
    int8: bytes | None = None,
    overwrite: bool = False,
) -> Path:
    """Write a compressed model; see :meth:`tuckertree.CompressionResult.save`.

    Raises
    ------
    TuckertreeError
        If the folder exists and may not be replaced, or cannot be written.
    """
    path = Path(path)
    config = {
        "format": FORMAT,
        "tuckertree": __version__,
        "architecture": architecture,
        "tensors": TENSORS,
        "plan": plan.to_json(),
        "input_size": input_size,
        **({} if int8 is None else {"int8": QUANTIZED}),
    }
    with atomic_folder(path, kind=SAVED, overwrite=overwrite) as folder:
        save_tensors(model, folder / TENSORS)
        if int8 is not None:
            (folder / QUANTIZED).write_bytes(int8)
        _write_json(folder / REPORT, {**report, "environment": environment()})
        _write_json(folder / CONFIG, config)
    return path


def check_output(path: str | Path, *, overwrite: bool) -> None:
    """Refuse, before any work is done, an output that :func:`save_folder` would refuse.

    Raises
    ------
    TuckertreeError
        If the path exists and may not be replaced.
    """
    check_free(Path(path), kind=SAVED, overwrite=overwrite)


def read_config(path: str | Path) -> SavedConfig:
    """Read and check ``config.json`` of a saved folder.

    Raises
    ------
    TuckertreeError
        If the folder or the config is missing, not ours, of a newer format, or points outside the folder.
    """
    path = Path(path)
    if not path.is_dir():
        why = "it is a file" if path.exists() else "there is no such folder"
        raise TuckertreeError(f"{path} is not a folder saved by tuckertree: {why}")
    data = _read_json(path / CONFIG)
    if not isinstance(data, dict) or not isinstance(data.get("format"), int):
        raise TuckertreeError(f"{path / CONFIG} is not a tuckertree config: it has no format number")
    if data["format"] != FORMAT:
        raise TuckertreeError(
            f"{path / CONFIG} has format {data['format']}, this tuckertree {__version__} reads {FORMAT}; "
            "install the version that wrote it"
        )
    try:
        found = read_as(_Config, data)
        size = read_size(found.input_size)
    except TuckertreeError as error:
        raise TuckertreeError(f"{path / CONFIG}: {error}") from error
    for what, name in (("tensors", found.tensors), ("an ONNX file", found.int8)):
        if name is not None and (Path(name).name != name or name in ("", ".", "..")):
            raise TuckertreeError(f"{path / CONFIG} names {what} outside its folder: {name!r}; refused")
    if found.int8 is not None and not is_int8(found.plan):
        raise TuckertreeError(
            f"{path / CONFIG} names a file in 8 bits, which its plan is not made for; refused"
        )
    architecture = None if found.architecture is None else UntrustedName(found.architecture)
    return SavedConfig(FORMAT, found.tuckertree, architecture, found.tensors, found.plan, size, found.int8)


def int8_file(path: str | Path, config: SavedConfig) -> Path | None:
    """The ONNX file in 8 bits of a saved folder, if it has one; nothing of it is read.

    Raises
    ------
    TuckertreeError
        If it is missing, or leads outside the folder.
    """
    return None if config.int8 is None else file_in(Path(path), config.int8)


def read_plan(path: str | Path) -> Plan:
    """Read a plan from a file of :meth:`~tuckertree.planning.Plan.dumps`, or that of a saved folder.

    Raises
    ------
    TuckertreeError
        If there is none, or it is damaged.
    """
    path = Path(path)
    if path.is_dir():
        return read_config(path).plan
    if not path.exists():
        raise TuckertreeError(f"{path}: no such file or folder; give a plan, or a folder saved by compress")
    data = _read_json(path)
    try:
        return Plan.from_json(data)
    except TuckertreeError as error:
        raise TuckertreeError(f"{path} is not a plan: {error}") from error


def read_report(path: str | Path) -> dict[str, object]:
    """Read ``report.json`` of a saved folder.

    Raises
    ------
    TuckertreeError
        If it is missing or not JSON.
    """
    data = _read_json(Path(path) / REPORT)
    if not isinstance(data, dict):
        raise TuckertreeError(f"{Path(path) / REPORT} is not a report")
    return data


def load_folder(
    path: str | Path, build: Callable[[str], nn.Module], into: nn.Module | None = None, *, fused: bool = False
) -> tuple[nn.Module, SavedConfig]:
    """Rebuild a compressed model from a saved folder, in evaluation mode; no decomposition is made.

    Parameters
    ----------
    build
        Makes the dense architecture from its name; called only where ``into`` is not given.
    into
        The dense architecture, for a folder that does not name it; it is not changed.
    fused
        Whether to give the network as it was measured for a latency (:func:`~tuckertree.latency.fuse_as_planned`).

    Raises
    ------
    TuckertreeError
        If anything is missing, corrupt, of a newer format, of other names or shapes, or outside the folder.
    """
    path = Path(path)
    config = read_config(path)
    tensors = file_in(path, config.tensors)
    model = build_structure(into if into is not None else _built(path, config, build), config.plan)
    load_tensors(model, tensors)
    model.eval()
    return fuse_as_planned(model, config.plan) if fused else model, config


def file_in(folder: Path, name: str) -> Path:
    """A regular file in a folder, by its name.

    Raises
    ------
    TuckertreeError
        If it is missing, or leads outside the folder.
    """
    file = folder / name
    if not file.exists():
        raise TuckertreeError(f"{folder} has no {name}")
    if not file.resolve().is_relative_to(folder.resolve()):
        raise TuckertreeError(f"{file} leads outside its folder; refused")
    check_regular(file)
    return file


def ask_for_model(path: Path, error: UsageError | None = None) -> TuckertreeError:
    """The error for a folder that does not say what it was made from, or says what is no known architecture.

    Parameters
    ----------
    error
        What is wrong with the name in its config.
    """
    fault = f"{path} does not name its architecture" if error is None else f"{path / CONFIG}: {error}"
    remedy = advice(
        typed="say what builds the dense model: --model package.module:factory",
        called=f"pass the dense model: load({str(path)!r}, into=model)",
    )
    return TuckertreeError(f"{fault}; {remedy}")


def _built(path: Path, config: SavedConfig, build: Callable[[str], nn.Module]) -> nn.Module:
    if config.architecture is None:
        raise ask_for_model(path)
    try:
        return build(str(config.architecture))
    except UsageError as error:
        raise ask_for_model(path, error) from error


def _write_json(path: Path, data: Mapping[str, object]) -> None:
    path.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")


def _read_json(path: Path) -> object:
    if not path.exists():
        raise TuckertreeError(f"{path.parent} is not a folder saved by tuckertree: it has no {path.name}")
    return read_json(file_in(path.parent, path.name))
