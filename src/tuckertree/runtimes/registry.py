"""The runtimes there are: those of this package, those registered, and those of installed packages."""

from __future__ import annotations

import inspect
import re
from functools import cache
from importlib.metadata import entry_points
from typing import TypeVar
from warnings import warn

import torch

from tuckertree._base.errors import UsageError
from tuckertree.runtimes.onnx_runtimes import OnnxRuntime, OpenVino
from tuckertree.runtimes.quantization import FP32
from tuckertree.runtimes.runtime import Runtime, usable_device
from tuckertree.runtimes.torch_runtimes import CompiledRuntime, TorchRuntime
from tuckertree.runtimes.triton_runtime import TritonRuntime

Kind = TypeVar("Kind", bound=type[Runtime])
_KINDS: dict[str, type[Runtime]] = {
    kind.name: kind for kind in (TorchRuntime, CompiledRuntime, OnnxRuntime, OpenVino, TritonRuntime)
}
_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]*")


def register_runtime(kind: Kind) -> Kind:
    """Make a runtime known by its name, and its format to :func:`~tuckertree.io.export.export`; a class decorator.

    A package offers its runtime to the command line, too, by an entry point of the group ``tuckertree.runtimes``.

    Raises
    ------
    UsageError
        If it is no complete :class:`Runtime`, or its name, format or suffix is another's; the message says which.
    """
    _check(kind)
    _KINDS[kind.name] = kind
    return kind


def runtimes() -> dict[str, type[Runtime]]:
    """The classes of all runtimes by name."""
    _load_installed()
    return dict(_KINDS)


def formats() -> dict[str, type[Runtime]]:
    """The classes of the runtimes that write files, by format."""
    return {kind.format: kind for kind in runtimes().values() if kind.format}


def find_runtime(name: str) -> type[Runtime]:
    """The class of a runtime.

    Raises
    ------
    UsageError
        If there is no such runtime.
    """
    if name not in _KINDS and name not in runtimes():
        raise UsageError(f"unknown runtime {name!r}; known: {', '.join(_KINDS)}")
    return _KINDS[name]


def check_precision(name: str, precision: str) -> None:
    """Refuse a precision that a runtime does not have.

    Raises
    ------
    UsageError
        If there is no such runtime or precision, or the runtime cannot run a network so; the message says which can.
    """
    kind, every = find_runtime(name), runtimes().values()
    if precision in kind.precisions:
        return
    able = [other.name for other in every if precision in other.precisions]
    if not able:
        known = dict.fromkeys(each for other in every for each in other.precisions)
        raise UsageError(f"unknown precision {precision!r}; known: {', '.join(known)}")
    raise UsageError(f"networks run in {precision} on {', '.join(able)}, not on {name}")


def get_runtime(
    name: str, *, threads: int | None = None, device: str = "cpu", precision: str = FP32
) -> Runtime:
    """Make a runtime by name.

    Parameters
    ----------
    name
        ``torch``, ``torch-compile``, ``onnxruntime``, ``openvino``, ``triton``, or one that was registered.
    threads
        Threads of the CPU that a run may use; by default as many as torch uses.
    device
        A torch device, of a type that the runtime runs on.
    precision
        ``fp32``; or ``int8`` where the runtime has it: then networks that it loads are quantized, by ranges that are
        good enough to time them.

    Raises
    ------
    UsageError
        If there is no such runtime, it does not run on the device or in the precision, or the number of threads is not
        positive.
    TuckertreeError
        If its package is not installed.
    """
    kind = find_runtime(name)
    check_precision(name, precision)
    if threads is not None and threads < 1:
        raise UsageError(f"a runtime needs at least one thread, got {threads}")
    if device.partition(":")[0] not in kind.devices:
        where = kind.devices[0] + " alone" if len(kind.devices) == 1 else ", ".join(kind.devices)
        raise UsageError(f"the runtime {name} runs on the {where}, not on {device}")
    usable_device(device)
    runtime = kind(threads or torch.get_num_threads(), device)
    _ = runtime.version  # imports the package, or says what to install
    return runtime.at(precision)


def _check(kind: type[Runtime]) -> None:
    if not (isinstance(kind, type) and issubclass(kind, Runtime)):
        raise UsageError(f"a runtime is a subclass of tuckertree.runtimes.Runtime, {kind!r} is not")
    what = f"the runtime {kind.__name__}"
    name = getattr(kind, "name", "")
    if not (isinstance(name, str) and _NAME.fullmatch(name)):
        raise UsageError(f"{what} needs a name of small letters, digits, '-', '.' and '_', not {name!r}")
    if inspect.isabstract(kind):
        raise UsageError(f"{what} lacks {', '.join(sorted(kind.__abstractmethods__))}")
    if not kind.devices:
        raise UsageError(f"{what} names no device")
    if bool(kind.format) != kind.suffix.startswith("."):
        raise UsageError(f"{what} needs a format and a suffix such as '.onnx', or neither")
    for other in _KINDS.values():
        is_same = (other.__module__, other.__qualname__) == (kind.__module__, kind.__qualname__)
        for clause in ("name", "format", "suffix"):
            own = getattr(kind, clause)
            if own and own == getattr(other, clause) and not is_same:
                raise UsageError(f"{what} has the {clause} {own!r} of {other.__name__}")


@cache
def _load_installed() -> None:
    for entry in entry_points(group="tuckertree.runtimes"):
        try:
            register_runtime(entry.load())
        except Exception as error:  # of code that is not ours: the other runtimes can do without it
            said = " ".join(str(error).split()) or type(error).__name__
            warn(f"the installed runtime {entry.name} ({entry.value}) cannot be used: {said}", stacklevel=4)
