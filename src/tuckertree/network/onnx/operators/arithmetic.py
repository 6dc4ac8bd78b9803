"""Operators that work on each element: arithmetic, comparisons, logic, rounding, types."""

from __future__ import annotations

from functools import reduce

import torch
from torch import Tensor

from tuckertree._base.errors import TuckertreeError
from tuckertree.network.onnx.operators.operation import Function, Operation, Result, Table, dtype_of

TABLE = Table()


def _divide(x: Tensor, y: Tensor) -> Tensor:
    return x / y if x.is_floating_point() else torch.div(x, y, rounding_mode="trunc")


def _power(x: Tensor, y: Tensor) -> Tensor:
    if x.is_floating_point():
        return x ** y.to(x.dtype)
    return (x.double() ** y.double()).to(x.dtype)


def _mean(*inputs: Tensor) -> Tensor:
    return reduce(torch.add, inputs) / len(inputs)


TABLE.plain(
    {
        "Abs": torch.abs,
        "Acos": torch.acos,
        "Acosh": torch.acosh,
        "Add": torch.add,
        "And": torch.logical_and,
        "Asin": torch.asin,
        "Asinh": torch.asinh,
        "Atan": torch.atan,
        "Atanh": torch.atanh,
        "BitwiseAnd": torch.bitwise_and,
        "BitwiseNot": torch.bitwise_not,
        "BitwiseOr": torch.bitwise_or,
        "BitwiseXor": torch.bitwise_xor,
        "CastLike": lambda x, like: x.to(like.dtype),
        "Ceil": torch.ceil,
        "Cos": torch.cos,
        "Cosh": torch.cosh,
        "Div": _divide,
        "Equal": torch.eq,
        "Erf": torch.erf,
        "Exp": torch.exp,
        "Floor": torch.floor,
        "Greater": torch.gt,
        "GreaterOrEqual": torch.ge,
        "Identity": lambda x: x,
        "IsNaN": torch.isnan,
        "Less": torch.lt,
        "LessOrEqual": torch.le,
        "Log": torch.log,
        "Max": lambda *inputs: reduce(torch.maximum, inputs),
        "Mean": _mean,
        "Min": lambda *inputs: reduce(torch.minimum, inputs),
        "Mul": torch.mul,
        "Neg": torch.neg,
        "Not": torch.logical_not,
        "Or": torch.logical_or,
        "Pow": _power,
        "Reciprocal": torch.reciprocal,
        "Round": torch.round,  # half to even, as in ONNX
        "Sign": lambda x: torch.where(torch.isnan(x), x, torch.sign(x)),
        "Sin": torch.sin,
        "Sinh": torch.sinh,
        "Sqrt": torch.sqrt,
        "Sub": torch.sub,
        "Sum": lambda *inputs: reduce(torch.add, inputs),
        "Tan": torch.tan,
        "Where": torch.where,
        "Xor": torch.logical_xor,
    }
)


@TABLE.add("BitShift")
def _bit_shift(operation: Operation) -> Function | None:
    left = operation.text("direction", "") == "LEFT"
    return torch.bitwise_left_shift if left else torch.bitwise_right_shift


@TABLE.add("Cast")
def _cast(operation: Operation) -> Function | None:
    dtype = dtype_of(operation.get("to"))
    return None if dtype is None else lambda x: x.to(dtype)


@TABLE.add("Clip")
def _clip(operation: Operation) -> Function | None:
    if operation.opset < 11:
        low, high = operation.get("min"), operation.get("max")
        return lambda x: x if low is None and high is None else torch.clamp(x, low, high)

    def clip(x: Tensor, low: Tensor | None = None, high: Tensor | None = None) -> Tensor:
        return x if low is None and high is None else torch.clamp(x, low, high)

    return clip


@TABLE.add("Dropout")
def _dropout(operation: Operation) -> Function | None:
    if operation.outputs > 1 and operation.opset < 12:  # ONNX Runtime's mask is not what ONNX says
        return None

    def dropout(x: Tensor, _: Tensor | None = None, training: Tensor | None = None) -> Result:
        if training is not None and bool(training):
            raise TuckertreeError("a Dropout in training mode is random; export the model for inference")
        return x if operation.outputs == 1 else (x, torch.ones_like(x, dtype=torch.bool))

    return dropout


@TABLE.add("IsInf")
def _is_inf(operation: Operation) -> Function | None:
    negative, positive = operation.get("detect_negative", 1), operation.get("detect_positive", 1)
    if negative and positive:
        return torch.isinf
    if negative or positive:
        return torch.isneginf if negative else torch.isposinf
    return lambda x: torch.zeros_like(x, dtype=torch.bool)


@TABLE.add("Mod")
def _mod(operation: Operation) -> Function | None:
    return torch.fmod if operation.get("fmod", 0) else torch.remainder
