"""Nodes whose outputs have no derivatives, or whose inputs are not floats."""

import numpy as np
from onnx import TensorProto

from tests.network.onnx.cases import numbers, tensor
from tests.network.onnx.operators.cases import Case, booleans, scalar, vector, whole

X = numbers(2, 3, 4)
Y = numbers(3, 1, seed=1)
IMAGE = numbers(2, 4, 6, 5, seed=2)
POSITIVE = np.abs(X) + np.float32(0.5)
UNIT = np.tanh(X)
INTEGERS = whole(2, 3, 4)
DIVISORS = np.where(whole(3, 1, seed=3) == 0, 3, whole(3, 1, seed=3))
SMALL = whole(3, 4, low=0, high=8, dtype=np.uint8)
ODD = np.array([0.5, 1.5, -0.5, -2.5, np.nan, np.inf, -np.inf, 0.3], np.float32)

STEPPED = [
    *(Case(kind, (ODD,)) for kind in ("Ceil", "Floor", "Round", "Sign", "IsNaN", "IsInf")),
    Case("IsInf", (ODD,), {"detect_negative": 0}),
    Case("IsInf", (ODD,), {"detect_positive": 0}),
    Case("IsInf", (ODD,), {"detect_negative": 0, "detect_positive": 0}, 20),
    *(Case(kind, (booleans(2, 3), booleans(3, seed=1))) for kind in ("And", "Or", "Xor")),
    Case("Not", (booleans(2, 3),)),
    *(
        Case(kind, (given, given[:1] + type(given[0].flat[0])(0)))
        for kind in ("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual")
        for given in (X, INTEGERS)
    ),
    *(Case(f"Bitwise{kind}", (INTEGERS, DIVISORS), {}, 18) for kind in ("And", "Or", "Xor")),
    Case("BitwiseNot", (INTEGERS,), {}, 18),
    *(Case("BitShift", (SMALL, SMALL[:1]), {"direction": way}) for way in ("LEFT", "RIGHT")),
    *(Case(kind, (INTEGERS, DIVISORS)) for kind in ("Add", "Sub", "Mul", "Div", "Mod", "Max", "Min")),
    Case("Mod", (INTEGERS, DIVISORS), {"fmod": 1}),
    Case("Mod", (INTEGERS.astype(np.int32), DIVISORS.astype(np.int32))),
    Case("Max", (np.array([1, np.nan], np.float32), np.array([np.nan, 1], np.float32))),
    Case("Pow", (INTEGERS, np.abs(DIVISORS))),
    Case("Pow", (np.abs(INTEGERS), scalar(0.5, np.float32))),
    Case("Pow", (X, scalar(2, np.int32))),
    *(Case(kind, (INTEGERS,)) for kind in ("Abs", "Neg", "Sign")),
    Case("Clip", (INTEGERS, scalar(-2), scalar(3)), {}, 12),
    Case("Relu", (INTEGERS.astype(np.int32),)),
    *(
        Case("Cast", (given,), {"to": to})
        for given in (X * 5, np.abs(INTEGERS), booleans(2, 3), SMALL)
        for to in (
            TensorProto.FLOAT,
            TensorProto.INT64,
            TensorProto.INT32,
            TensorProto.BOOL,
            TensorProto.INT16,
            TensorProto.INT8,
        )
    ),
    Case("Cast", (np.abs(X) * 5,), {"to": TensorProto.UINT8}),
    Case("CastLike", (X * 5, scalar(1))),
    Case("Dropout", (X,), {}, 12, 2),
    Case("Hardmax", (INTEGERS.astype(np.float32),)),
    Case("Hardmax", (INTEGERS.astype(np.float32),), {"axis": 1}),
    Case("Hardmax", (INTEGERS.astype(np.float32),), {}, 11),
    *(Case("Constant", (), {"value": tensor("", given)}) for given in (X, INTEGERS, booleans(2))),
    Case("Constant", (), {"value": tensor("", scalar(2.5, np.float64))}),
    Case("Constant", (), {"value_float": 0.3}),
    Case("Constant", (), {"value_floats": [0.3, 2.0]}),
    Case("Constant", (), {"value_int": 3}),
    Case("Constant", (), {"value_ints": [3, 4]}),
    Case("ConstantOfShape", (vector(2, 3),)),
    Case("ConstantOfShape", (vector(),), {"value": tensor("", vector(5))}),
    Case("Shape", (X,)),
    *(
        Case("Shape", (X,), {"start": start, "end": end}, 15)
        for start, end in [(1, 3), (-2, 9), (-9, -1), (2, 1)]
    ),
    Case("Shape", (X,), {"start": 1}, 15),
    Case("Size", (X,)),
    *(
        Case("Range", tuple(scalar(each, dtype) for each in given))
        for given, dtype in [
            ((1, 9, 3), np.int64),
            ((9, 1, -3), np.int32),
            ((1, 1, 2), np.int64),
            ((0.5, 2.1, 0.4), np.float32),
        ]
    ),
    Case("NonZero", (np.where(X > 0, X, 0),)),
    *(
        Case("OneHot", (whole(2, 3), depth, values), {"axis": axis})
        for depth, values, axis in [
            (scalar(4), np.array([0, 1], np.float32), -1),
            (vector(5), vector(2, 7), 0),
            (scalar(3), np.array([1, 0], np.float32), 1),
        ]
    ),
    Case("EyeLike", (X[0],)),
    Case("EyeLike", (X[0],), {"k": -1, "dtype": TensorProto.INT64}),
    *(
        Case(kind, (INTEGERS,), {"axis": 1, "keepdims": keep, "select_last_index": last}, 13)
        for kind in ("ArgMax", "ArgMin")
        for keep in (0, 1)
        for last in (0, 1)
    ),
    *(Case(kind, (X,), {}, 11) for kind in ("ArgMax", "ArgMin")),
    Case("TopK", (INTEGERS, vector(3)), {}, 11, 2),
    Case("TopK", (INTEGERS, vector(2)), {"axis": 1, "largest": 0}, 11, 2),
    Case("TopK", (np.round(X), vector(3)), {}, 10, 2),
    *(
        Case(f"Reduce{kind}", (INTEGERS.astype(np.int32), vector(2)), {}, 18)
        for kind in ("L1", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare", "L2")
    ),
    *(Case(f"Reduce{kind}", (booleans(2, 3), vector(1)), {}, 20) for kind in ("Max", "Min")),
    Case("ReduceSum", (INTEGERS,), {"axes": [1]}, 11),
    Case("CumSum", (INTEGERS.astype(np.int32), scalar(1, np.int32))),
    Case("MatMul", (whole(3, 4), whole(4, 2, seed=1))),
    Case("Where", (booleans(3, 1), INTEGERS, DIVISORS)),
    Case("Concat", (INTEGERS, INTEGERS), {"axis": 0}, 7),
    Case("Trilu", (INTEGERS,)),
    Case("Pad", (INTEGERS, vector(0, 1, 0, 2, 0, 1), scalar(2**60 + 1))),
    Case("Pad", (booleans(2, 3), vector(0, 1, 2, 0))),
    Case("MaxPool", (whole(1, 2, 5, 5, dtype=np.int8),), {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}, 12),
    Case("ScatterND", (INTEGERS, vector(1, 0).reshape(2, 1), INTEGERS + 1)),
]
