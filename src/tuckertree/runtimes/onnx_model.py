"""A torch module as an ONNX model, by torch.export."""

from __future__ import annotations

import inspect
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn

from tuckertree._base.errors import TuckertreeError, UsageError, first_line
from tuckertree._base.extras import require_extra
from tuckertree.measure.forward import evaluating
from tuckertree.runtimes.plain_layers import is_plain, plain_to_onnx

Dynamic = Literal["none", "batch", "size"]
"""Which sizes of the inputs stay free: none, the batch, or the batch and every spatial size."""
DYNAMIC: tuple[Dynamic, ...] = ("none", "batch", "size")


def to_onnx(model: nn.Module, inputs: Sequence[Tensor], dynamic: Dynamic = "none") -> Any:
    """Convert a module, which is run in evaluation mode and left in its own.

    Parameters
    ----------
    inputs
        Its positional arguments. Sizes that are not free become part of the model.
    dynamic
        With ``"batch"`` and ``"size"`` the first size of every input is free, and the same for all.

    Returns
    -------
    onnx.ModelProto
        With all weights inside; inputs and outputs in the order of the module's.

    Raises
    ------
    TuckertreeError
        If the module cannot be exported, or an extra is not installed.
    """
    for package in ("onnx", "onnxscript"):
        require_extra(package, extra="onnx")
    with evaluating(model), quiet_export("onnx"):
        program = torch.onnx.export(
            model,
            traceable(inputs, dynamic),
            dynamo=True,
            dynamic_shapes=dynamic_shapes(model, inputs, dynamic),
            verbose=False,
        )
    assert program is not None
    return program.model_proto


def branches_to_onnx(models: Sequence[nn.Module], inputs: Sequence[Tensor]) -> list[Any]:
    """Convert several modules that take the same inputs, much faster than one by one.

    Plain layers are written as they are (:func:`~tuckertree.runtimes.plain_layers.plain_to_onnx`). All others are
    exported as the branches of one graph, which is then taken apart.
    """
    plain = {i: plain_to_onnx(model, inputs) for i, model in enumerate(models) if is_plain(model, inputs)}
    others = [model for i, model in enumerate(models) if i not in plain]
    exported = iter(_exported(others, inputs) if others else ())
    return [plain[i] if i in plain else next(exported) for i in range(len(models))]


def _exported(models: Sequence[nn.Module], inputs: Sequence[Tensor]) -> list[Any]:
    utils = require_extra("onnx.utils", extra="onnx")
    whole = to_onnx(_Branches(models), inputs)
    names = [value.name for value in whole.graph.input]
    extractor = utils.Extractor(whole)
    return [extractor.extract_model(names, [output.name]) for output in whole.graph.output]


class _Branches(nn.Module):
    def __init__(self, models: Sequence[nn.Module]) -> None:
        super().__init__()
        self.branches = nn.ModuleList(models)

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        return tuple(branch(*inputs) for branch in self.branches)


def traceable(inputs: Sequence[Tensor], dynamic: Dynamic) -> tuple[Tensor, ...]:
    """Inputs to trace with: a free batch must not be 1 there, which torch.export takes for a constant."""
    if dynamic not in DYNAMIC:
        raise UsageError(f"free sizes can be {', '.join(DYNAMIC)}, not {dynamic!r}")
    if dynamic == "none":
        return tuple(inputs)
    return tuple(x if len(x) > 1 else torch.cat([x, x]) for x in inputs)


def dynamic_shapes(model: nn.Module, inputs: Sequence[Tensor], dynamic: Dynamic) -> tuple[Any, ...] | None:
    """The free sizes as torch.export takes them: one entry a parameter of ``forward``, a tuple for ``*inputs``."""
    if dynamic == "none":
        return None
    if dynamic == "batch":
        batch = torch.export.Dim("batch", max=2**31 - 1)  # torch 2.6 trips over its own largest integer
        free = [{0: batch} for _ in inputs]
    else:  # named sizes cannot be mixed with these in every version of torch
        free = [dict.fromkeys((0, *range(2, x.ndim)), torch.export.Dim.DYNAMIC) for x in inputs]
    return tuple(inspect.signature(model.forward).bind(*free).arguments.values())


@contextmanager
def quiet_export(what: str) -> Iterator[None]:
    """Turn what torch's exporters raise into one line, and keep their diagnostics off the screen."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            # Deprecations inside torch, onnxscript and copyreg, which a user can do nothing about.
            warnings.simplefilter("ignore", DeprecationWarning)
            warnings.simplefilter("ignore", FutureWarning)
            warnings.filterwarnings("ignore", category=UserWarning, module=r"torch\.(onnx|export|_export)")
            yield
    except (TuckertreeError, KeyboardInterrupt, MemoryError):
        raise
    except Exception as error:
        raise TuckertreeError(f"the model cannot be exported to {what}: {_cause(error)}") from error
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _cause(error: BaseException) -> str:
    """First line of the error that the exporter's own, many lines long, goes back to."""
    while error.__cause__ is not None:
        error = error.__cause__
    kind, line = type(error).__name__, first_line(error)
    return kind if line == kind else f"{kind}: {line[:300]}"
