"""What a model does: a few forward passes, with all that is called and returned."""

from __future__ import annotations

import random
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook

from tuckertree.core.layers.product import is_transformed
from tuckertree.measure import ExampleInputs, call
from tuckertree.measure.forward import modes_of, set_modes, uncompiled
from tuckertree.measure.nested import each_leaf, results, tensors

_SEED = 0
_NOISE = 0.1
_PRECISE = (torch.float32, torch.float64)
MODES = {False: "evaluation", True: "training"}


@dataclass(frozen=True)
class Record:
    """What came of some forward passes.

    Attributes
    ----------
    where
        Mode and number of the input, for messages.
    calls
        Name of each module called, in order, and the norms of the tensors it returned.
    outputs
        Tensors and numbers in what the model returned; in training mode its buffers, too.
    """

    where: str
    calls: tuple[tuple[str, tuple[float, ...]], ...]
    outputs: tuple[object, ...]


def record(model: nn.Module, inputs: Sequence[ExampleInputs], *, training: bool) -> list[Record]:
    """Run a model on inputs one after the other, each time with the same random numbers, without gradients.

    The model is left in the mode asked for, and in whatever state its forward passes leave it.

    Raises
    ------
    TuckertreeError
        If it does not run.
    """
    modes = dict.fromkeys(modes_of(model), training)
    set_modes(modes)
    records = []
    for number, values in enumerate(inputs):
        where = f"in {MODES[training]} mode" + (" on a perturbed input" if number else "")
        _seed()
        with torch.no_grad(), _calls_of(model) as calls, _deterministic():
            output = call(model, values, "the example input" if not number else "a perturbed example input")
        state = list(model.buffers()) if training else []
        found = [x.detach().clone() if isinstance(x, Tensor) else x for x in results([output, state])]
        records.append(Record(where, tuple(calls), tuple(found)))
    return records


def perturbations(inputs: ExampleInputs) -> Iterator[ExampleInputs]:
    """Other inputs of the same kind: with noise, with their elements in another order, and as they are.

    Noise is a tenth of the values' root mean square; of one where they are all zero.
    """
    generator = torch.Generator().manual_seed(_SEED)

    def noisy(x: object) -> object:
        if not (isinstance(x, Tensor) and x.is_floating_point()):
            return x
        size = float(x.float().square().mean().sqrt()) if x.numel() else 0.0
        noise = torch.randn(x.shape, generator=generator).to(x.device)
        return (x.float() + _NOISE * (size or 1.0) * noise).to(x.dtype)

    def mixed(x: object) -> object:
        if not isinstance(x, Tensor) or x.numel() < 2:
            return x
        order = torch.randperm(x.numel(), generator=generator).to(x.device)
        return x.detach().flatten()[order].reshape(x.shape)

    if any(x.is_floating_point() for x in tensors(inputs)):
        yield each_leaf(inputs, noisy)
    yield each_leaf(inputs, mixed)
    yield inputs


@contextmanager
def _calls_of(model: nn.Module) -> Iterator[list[tuple[str, tuple[float, ...]]]]:
    """Record every call of a module, by a hook that is on none of them: models look for hooks on their layers."""
    names = {id(module): name for name, module in model.named_modules()}
    calls: list[tuple[str, tuple[float, ...]]] = []

    def look(module: nn.Module, args: object, output: object) -> None:  # noqa: ARG001
        name = names.get(id(module), f"a {type(module).__name__} that is not its own")
        calls.append((name, tuple(map(_norm, tensors(output)))))

    handle = register_module_forward_hook(look)
    try:
        with warnings.catch_warnings():
            # Compiled modules warn that the hook is called for them, too.
            warnings.filterwarnings("ignore", message="Using `torch.compile", category=UserWarning)
            yield calls
    finally:
        handle.remove()


def _norm(x: Tensor) -> float:
    is_ordinary = x.layout is torch.strided and not (x.is_meta or x.is_quantized or x.is_nested)
    if not is_ordinary or is_transformed():
        return 0.0
    x = x.detach()
    return float(
        torch.linalg.vector_norm(x if x.dtype in _PRECISE or x.is_complex() else x.to(torch.float32))
    )


def _seed() -> None:
    torch.manual_seed(_SEED)
    random.seed(_SEED)
    np.random.seed(_SEED)  # noqa: NPY002 (the model may use it)


@contextmanager
def _deterministic() -> Iterator[None]:
    """The same kernels each time, where cuDNN would choose or code would be compiled."""
    cudnn = torch.backends.cudnn
    before = cudnn.benchmark, cudnn.deterministic
    cudnn.benchmark, cudnn.deterministic = False, True
    try:
        with uncompiled():
            yield
    finally:
        cudnn.benchmark, cudnn.deterministic = before
