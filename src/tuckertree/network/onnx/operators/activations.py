"""Activations."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from tuckertree.network.onnx.operators.operation import Function, Operation, Table

TABLE = Table()


def softplus(x: Tensor) -> Tensor:
    """``log(1 + exp(x))`` without torch's threshold, which is coarse in float64."""
    return torch.logaddexp(x, x.new_zeros(()))


TABLE.plain(
    {
        "HardSwish": F.hardswish,
        "Mish": lambda x: x * softplus(x).tanh(),
        "PRelu": lambda x, slope: torch.where(x < 0, x * slope, x),
        "Relu": torch.relu,
        "Sigmoid": torch.sigmoid,
        "Softplus": softplus,
        "Softsign": lambda x: x / (1 + x.abs()),
        "Tanh": torch.tanh,
    }
)


@TABLE.add("Celu")
def _celu(operation: Operation) -> Function | None:
    alpha = operation.get("alpha", 1.0)
    return lambda x: F.celu(x, alpha)


@TABLE.add("Elu")
def _elu(operation: Operation) -> Function | None:
    alpha = operation.get("alpha", 1.0)
    return lambda x: F.elu(x, alpha)


@TABLE.add("Gelu")
def _gelu(operation: Operation) -> Function | None:
    approximate = operation.text("approximate", "none")
    return lambda x: F.gelu(x, approximate=approximate)


@TABLE.add("HardSigmoid")
def _hard_sigmoid(operation: Operation) -> Function | None:
    alpha, beta = operation.get("alpha", 0.2), operation.get("beta", 0.5)
    return lambda x: (alpha * x + beta).clamp(0, 1)


@TABLE.add("LeakyRelu")
def _leaky_relu(operation: Operation) -> Function | None:
    alpha = operation.get("alpha", 0.01)
    return lambda x: F.leaky_relu(x, alpha)


@TABLE.add("Selu")
def _selu(operation: Operation) -> Function | None:
    alpha = operation.get("alpha", 1.67326319217681884765625)
    gamma = operation.get("gamma", 1.05070102214813232421875)
    return lambda x: gamma * F.elu(x, alpha)


@TABLE.add("Shrink")
def _shrink(operation: Operation) -> Function | None:
    bias, threshold = operation.get("bias", 0.0), operation.get("lambd", 0.5)

    def shrink(x: Tensor) -> Tensor:
        shrunk = torch.where(x < 0, x + bias, x - bias)
        return torch.where(x.abs() > threshold, shrunk, 0).to(x.dtype)

    return shrink


@TABLE.add("Swish")
def _swish(operation: Operation) -> Function | None:
    alpha = operation.get("alpha", 1.0)
    return lambda x: x * torch.sigmoid(alpha * x)


@TABLE.add("ThresholdedRelu")
def _thresholded_relu(operation: Operation) -> Function | None:
    alpha = operation.get("alpha", 1.0)
    return lambda x: torch.where(x > alpha, x, 0)
