"""Normalisation and softmax."""

from __future__ import annotations

from collections.abc import Callable
from math import prod

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from tuckertree.network.onnx.operators.operation import Function, Operation, Table, along

TABLE = Table()


@TABLE.add("BatchNormalization")
def _batch_normalization(operation: Operation) -> Function | None:
    if operation.get("training_mode", 0) or not operation.get("spatial", 1):
        return None
    epsilon = operation.get("epsilon", 1e-5)

    def batch_normalization(x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
        factor = scale / torch.sqrt(variance + epsilon)
        shift = bias - mean * factor
        return (x * along(factor, 1, x.dim()) + along(shift, 1, x.dim())).to(x.dtype)

    return batch_normalization


@TABLE.add("GroupNormalization")
def _group_normalization(operation: Operation) -> Function | None:
    epsilon, groups = operation.get("epsilon", 1e-5), operation.get("num_groups")

    def group_normalization(x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
        parts = x.reshape(x.shape[0], groups, -1)
        normal = F.layer_norm(parts, parts.shape[2:], eps=epsilon).reshape(x.shape)
        if operation.opset < 21:  # one for each group
            scale, bias = (each.repeat_interleave(x.shape[1] // groups) for each in (scale, bias))
        return normal * along(scale, 1, x.dim()) + along(bias, 1, x.dim())

    return group_normalization


@TABLE.add("InstanceNormalization")
def _instance_normalization(operation: Operation) -> Function | None:
    epsilon = operation.get("epsilon", 1e-5)

    def instance_normalization(x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
        normal = F.layer_norm(x, x.shape[2:], eps=epsilon)
        return normal * along(scale, 1, x.dim()) + along(bias, 1, x.dim())

    return instance_normalization


@TABLE.add("LayerNormalization")
def _layer_normalization(operation: Operation) -> Function | None:
    axis, epsilon = operation.get("axis", -1), operation.get("epsilon", 1e-5)
    if operation.get("stash_type", 1) != 1:
        return None

    def layer_normalization(x: Tensor, scale: Tensor, bias: Tensor | None = None) -> Tensor:
        y = F.layer_norm(x, x.shape[axis:], eps=epsilon) * scale
        return y if bias is None else y + bias

    return layer_normalization


@TABLE.add("LpNormalization")
def _lp_normalization(operation: Operation) -> Function | None:
    axis, p = operation.get("axis", -1), operation.get("p", 2)

    def lp_normalization(x: Tensor) -> Tensor:
        norm = torch.linalg.vector_norm(x, p, axis, keepdim=True)
        return x / torch.where(norm == 0, 1, norm)

    return lp_normalization


@TABLE.add("LRN")
def _local_response_normalization(operation: Operation) -> Function | None:
    size, bias = operation.get("size"), operation.get("bias", 1.0)
    alpha, beta = operation.get("alpha", 1e-4), operation.get("beta", 0.75)

    def local_response_normalization(x: Tensor) -> Tensor:
        flat = x.square().reshape(*x.shape[:2], -1)
        reached = F.pad(flat, (0, 0, (size - 1) // 2, size // 2)).unfold(1, size, 1).sum(-1)
        return x / (bias + alpha / size * reached.reshape(x.shape)) ** beta

    return local_response_normalization


@TABLE.add("MeanVarianceNormalization")
def _mean_variance_normalization(operation: Operation) -> Function | None:
    axes = operation.get("axes", [0, 2, 3])

    def mean_variance_normalization(x: Tensor) -> Tensor:
        centred = x - x.mean(axes, keepdim=True)
        norm = torch.linalg.vector_norm(centred, 2, axes, keepdim=True)
        return centred / (norm / (x.numel() / norm.numel()) ** 0.5 + 1e-9)

    return mean_variance_normalization


@TABLE.add("RMSNormalization")
def _rms_normalization(operation: Operation) -> Function | None:
    axis, epsilon = operation.get("axis", -1), operation.get("epsilon", 1e-5)
    if operation.get("stash_type", 1) != 1:
        return None
    return lambda x, scale: F.rms_norm(x, x.shape[axis:], eps=epsilon) * scale


def _hardmax(x: Tensor, axis: int) -> Tensor:
    largest = x.argmax(axis, keepdim=True)
    return torch.zeros_like(x).scatter(axis, largest, 1)


_SOFTMAX: dict[str, Callable[[Tensor, int], Tensor]] = {
    "Hardmax": _hardmax,
    "LogSoftmax": torch.log_softmax,
    "Softmax": torch.softmax,
}


@TABLE.add(*_SOFTMAX)
def _softmax(operation: Operation) -> Function | None:
    function = _SOFTMAX[operation.kind]
    if operation.opset >= 13:
        axis = operation.get("axis", -1)
        return lambda x: function(x, axis)
    first = operation.get("axis", 1)

    def flat_softmax(x: Tensor) -> Tensor:
        rows = x.reshape(prod(x.shape[:first]), prod(x.shape[first:]))
        return function(rows, 1).reshape(x.shape)

    return flat_softmax
