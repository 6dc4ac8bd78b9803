"""Size and work of a network: parameters and multiply-accumulates."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.utils import flop_counter

from tuckertree.measure.forward import ExampleInputs, run


def count_parameters(model: nn.Module) -> int:
    """Number of parameters, shared ones once; buffers (running statistics) do not count."""
    return sum(parameter.numel() for parameter in model.parameters())


def count_macs(model: nn.Module, example_inputs: ExampleInputs) -> int:
    """Multiply-accumulates of one forward pass at the example inputs, by torch's own counter (FLOPs / 2).

    Raises
    ------
    TuckertreeError
        If the model does not run on the inputs.
    """
    with _without_fast_attention(), _Counter(display=False) as counter:
        run(model, example_inputs)
    return counter.get_total_flops() // 2


class _Counter(flop_counter.FlopCounterMode):
    """Torch's counter without its account of modules, whose hooks fail where a module is called with a parameter."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.mod_tracker: Any = _WholeModel()


class _WholeModel(nullcontext[None]):
    parents = frozenset({"Global"})  # torch's word for the whole


@contextmanager
def _without_fast_attention() -> Iterator[None]:
    """Without the fused encoder layers of torch, whose nested tensors cannot be counted."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)
