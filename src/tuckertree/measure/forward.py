"""Running a model without leaving a trace in it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from tuckertree._base.errors import TuckertreeError, first_line
from tuckertree.measure.nested import each_leaf

ExampleInputs = Tensor | Sequence[Any] | Mapping[str, object]
"""One tensor, a sequence of positional arguments, or a mapping of keyword arguments."""


@contextmanager
def evaluating(model: nn.Module, *, as_written: bool = False) -> Iterator[None]:
    """Put every module in evaluation mode, without gradients, and restore each one's own mode after.

    ``as_written``, what is compiled runs as :func:`uncompiled` has it: for forward passes that are watched by hooks.
    """
    modes = modes_of(model)
    try:
        set_modes(dict.fromkeys(modes, False))
        with torch.no_grad(), uncompiled() if as_written else nullcontext():
            yield
    finally:
        set_modes(modes)


@contextmanager
def uncompiled() -> Iterator[None]:
    """Run compiled modules as they are written: what was compiled before a hook was set does not call it."""
    is_compiled = "torch._dynamo" in sys.modules  # imported with the first compiled model
    with torch.compiler.set_stance("force_eager") if is_compiled else nullcontext():
        yield


def modes_of(model: nn.Module) -> dict[nn.Module, bool]:
    """Whether each module of a model is in training mode, those that hold others first."""
    # Frozen TorchScript has no mode.
    return {module: module.training for module in model.modules() if hasattr(module, "training")}


def set_modes(modes: Mapping[nn.Module, bool]) -> None:
    """Give modules their modes by their own ``train``, which may do more than note it, where they differ."""
    for module, mode in modes.items():
        if module.training != mode:
            module.train(mode)
    for module, mode in modes.items():
        if module.training != mode:  # its train() would not have it so, but so it was
            module.training = mode


def run(model: nn.Module, example_inputs: ExampleInputs, what: str = "the example input") -> object:
    """Run the model once in evaluation mode and return what it returns.

    Raises
    ------
    TuckertreeError
        If the model cannot take these inputs; the message holds their shapes and the model's own complaint.
    """
    with evaluating(model, as_written=True):
        return call(model, example_inputs, what)


def call(model: nn.Module, inputs: ExampleInputs, what: str) -> object:
    """Call the model as it is; ``what`` the inputs are is said where it does not run on them.

    The model gets copies of the tensors, so that a forward pass that changes its inputs in place changes nobody else's.

    Raises
    ------
    TuckertreeError
        As :func:`run`.
    """
    inputs = each_leaf(inputs, _copied)
    try:
        if isinstance(inputs, Tensor):
            return model(inputs)
        if isinstance(inputs, Mapping):
            return model(**inputs)
        return model(*inputs)
    except TuckertreeError:
        raise
    except Exception as error:
        raise TuckertreeError(
            f"the model does not run on {what} {describe(inputs)}: {first_line(error)}"
        ) from error


def watch_input(module: nn.Module, see: Callable[[Any], None]) -> RemovableHandle:
    """Show what a layer is called with, by position or as ``input=``, to ``see`` before each call."""

    def hook(module: nn.Module, args: tuple[object, ...], kwargs: dict[str, object]) -> None:  # noqa: ARG001
        see(layer_input(args, kwargs))

    return module.register_forward_pre_hook(hook, with_kwargs=True)


def watch_call(module: nn.Module, see: Callable[[object, object], None]) -> RemovableHandle:
    """Show a layer's input, as :func:`watch_input`, and its output to ``see`` after each call."""

    def hook(module: nn.Module, args: tuple[object, ...], kwargs: dict[str, object], output: object) -> None:  # noqa: ARG001
        see(layer_input(args, kwargs), output)

    return module.register_forward_hook(hook, with_kwargs=True)


def layer_input(args: tuple[object, ...], kwargs: Mapping[str, object]) -> Any:
    """What torch's layers call ``input``, however it was given; None where there is none."""
    return args[0] if args else kwargs.get("input")


def _copied(value: object) -> object:
    return value.detach().clone() if isinstance(value, Tensor) else value


def describe(inputs: object) -> str:
    """Shapes and types of inputs, for messages: ``[1, 3, 32, 32] float32``."""
    if isinstance(inputs, Tensor):
        return f"{list(inputs.shape)} {str(inputs.dtype).removeprefix('torch.')}"
    if isinstance(inputs, Mapping):
        return "{" + ", ".join(f"{key}: {describe(value)}" for key, value in inputs.items()) + "}"
    if isinstance(inputs, list | tuple):
        return "(" + ", ".join(describe(value) for value in inputs) + ")"
    return type(inputs).__name__
