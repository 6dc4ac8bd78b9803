"""Size and work of a network: parameters and multiply-accumulates."""

from __future__ import annotations

import warnings

from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from tuckertree.measure.forward import ExampleInputs, run


def count_parameters(model: nn.Module) -> int:
    """Number of parameters, shared ones once; buffers (running statistics) do not count."""
    return sum(parameter.numel() for parameter in model.parameters())


def count_macs(model: nn.Module, example_inputs: ExampleInputs) -> int:
    """Multiply-accumulates of one forward at the example inputs, by torch's own counter (FLOPs / 2).

    Raises
    ------
    TuckertreeError
        If the model does not run on the inputs.
    """
    with FlopCounterMode(display=False) as counter, warnings.catch_warnings():
        # Of the counter's hooks, where a module is compiled; none of them counts twice.
        warnings.filterwarnings("ignore", message="Using `torch.compile")
        run(model, example_inputs)
    return counter.get_total_flops() // 2
