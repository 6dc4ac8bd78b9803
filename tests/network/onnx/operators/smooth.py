"""Nodes whose outputs have derivatives."""

import numpy as np
from onnx import TensorProto

from tests.network.onnx.cases import numbers
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

SMOOTH = [
    *(
        Case(kind, (X,))
        for kind in ("Abs", "Atan", "Asinh", "Cos", "Cosh", "Erf", "Exp", "Neg", "Sin", "Sinh", "Tan")
    ),
    *(Case(kind, (UNIT,)) for kind in ("Acos", "Asin", "Atanh")),
    *(Case(kind, (POSITIVE,)) for kind in ("Log", "Sqrt", "Reciprocal")),
    *(Case(kind, (X, Y), {}, opset) for kind in ("Add", "Sub", "Mul", "Div") for opset in (7, 14)),
    *(Case(kind, (X, Y, scalar(0.3, np.float32))) for kind in ("Max", "Min", "Sum", "Mean")),
    *(Case(kind, (X,)) for kind in ("Max", "Min", "Sum", "Mean", "Identity")),
    Case("Acosh", (POSITIVE + 1,)),
    Case("Pow", (POSITIVE, Y)),
    Case("Pow", (X, scalar(2, np.float32)), fixed=(1,)),
    Case("Pow", (POSITIVE, scalar(3))),
    Case("Mod", (X, POSITIVE), {"fmod": 1}, fixed=(1,)),
    Case("Where", (booleans(3, 1), X, Y)),
    Case("Clip", (X,), {"min": -0.5, "max": 0.7}, 7),
    Case("Clip", (X,), {"max": 0.7}, 10),
    Case("Clip", (X,), {}, 10),
    Case("Clip", (X, scalar(-0.5, np.float32), scalar(0.5, np.float32))),
    Case("Clip", (X, None, scalar(0.5, np.float32)), {}, 11),
    Case("Clip", (X, scalar(0.5, np.float32), scalar(-0.5, np.float32)), fixed=(1, 2)),
    Case("Clip", (X,), {}, 13),
    Case("Dropout", (X,), {}, 11),
    Case("Dropout", (X, scalar(0.5, np.float32), scalar(False, bool)), {}, 13, fixed=(1,)),
    *(
        Case(kind, (X,))
        for kind in [
            "Celu",
            "Elu",
            "HardSigmoid",
            "HardSwish",
            "LeakyRelu",
            "Relu",
            "Selu",
            "Sigmoid",
            "Softplus",
            "Softsign",
            "Tanh",
            "ThresholdedRelu",
        ]
    ),
    *(Case(kind, (X * 8,), {}, 18) for kind in ("Mish", "Sigmoid", "Softplus")),
    Case("Celu", (X,), {"alpha": 0.6}),
    Case("Elu", (X,), {"alpha": 0.6}),
    Case("Gelu", (X,), {}, 20),
    Case("Gelu", (X,), {"approximate": "tanh"}, 20),
    Case("HardSigmoid", (X,), {"alpha": 1 / 6, "beta": 0.4}),
    Case("LeakyRelu", (X,), {"alpha": 0.3}),
    Case("PRelu", (X, Y)),
    Case("PRelu", (X, numbers(4, seed=2)), {}, 7),
    Case("Selu", (X,), {"alpha": 1.2, "gamma": 0.8}),
    Case("Swish", (X,), {"alpha": 1.5}, 24),
    Case("Shrink", (X,), {"lambd": 0.4, "bias": 0.2}),
    Case("ThresholdedRelu", (X,), {"alpha": 0.4}),
    *(Case(kind, (X,), {"axis": 1}, opset) for kind in ("Softmax", "LogSoftmax") for opset in (7, 11, 13)),
    *(Case(kind, (X,), {}, opset) for kind in ("Softmax", "LogSoftmax") for opset in (11, 13)),
    # shapes
    Case("Expand", (Y, vector(2, 1, 4))),
    Case("Tile", (X, vector(1, 2, 3))),
    Case("Concat", (X, X + 1), {"axis": -2}),
    Case("DepthToSpace", (IMAGE,), {"blocksize": 2}, 10),
    Case("DepthToSpace", (numbers(1, 8, 2, 3),), {"blocksize": 2, "mode": "DCR"}, 13),
    Case("DepthToSpace", (numbers(1, 8, 2, 3),), {"blocksize": 2, "mode": "CRD"}, 13),
    Case("SpaceToDepth", (numbers(2, 3, 4, 6),), {"blocksize": 2}),
    *(Case("Flatten", (X,), {"axis": axis}) for axis in (-1, 0, 1, 3)),
    Case("Flatten", (X,), {}, 9),
    Case("Reshape", (X, vector(0, -1, 2))),
    Case("Reshape", (X, vector(-1)), {}, 7),
    Case("Reshape", (X, vector(4, 6)), {"allowzero": 1}, 14),
    *(Case("Squeeze", (numbers(1, 3, 1),), {"axes": axes}, 11) for axes in ([0], [-1, 0])),
    Case("Squeeze", (numbers(1, 3, 1), vector(-1))),
    Case("Squeeze", (numbers(1, 3, 1),)),
    Case("Unsqueeze", (X,), {"axes": [0, 3]}, 11),
    Case("Unsqueeze", (X, vector(-1, 0))),
    Case("Unsqueeze", (X, vector(4, 1))),
    Case("Transpose", (X,)),
    Case("Transpose", (X,), {"perm": [1, 2, 0]}),
    Case("Split", (X,), {"axis": -1, "split": [1, 3]}, 11, 2),
    Case("Split", (X,), {"axis": 2}, 11, 2),
    Case("Split", (X, vector(1, 2)), {"axis": 1}, 13, 2),
    Case("Split", (X,), {"axis": 2}, 13, 4),
    Case("Split", (X,), {"axis": 1, "num_outputs": 2}, 18, 2),
    Case("Slice", (X,), {"starts": [1, -3], "ends": [9, -1], "axes": [1, 2]}, 9),
    Case("Slice", (X,), {"starts": [1], "ends": [2]}, 9),
    Case("Slice", (X, vector(3), vector(-(2**62)), vector(-1), vector(-2))),
    # indexing
    Case("Gather", (X, whole(2, 2, low=-4, high=4)), {"axis": -1}),
    Case("Gather", (X, scalar(-1, np.int32)), {"axis": 1}),
    Case("GatherElements", (X, whole(2, 3, 2, low=-4, high=4)), {"axis": 2}),
    Case("GatherND", (X, whole(5, 2, low=-2, high=2))),
    Case("GatherND", (X, whole(2, 2, 1, low=-3, high=3)), {"batch_dims": 1}),
    Case("GatherND", (X, whole(2, 3, 2, 1, low=-4, high=4)), {"batch_dims": 2}),
    Case("Scatter", (X, vector(0, -1, 1).reshape(1, 3, 1), numbers(1, 3, 1, seed=4)), {"axis": 2}, 10),
    Case("ScatterElements", (X, vector(0, -1).reshape(1, 1, 2), numbers(1, 1, 2, seed=4)), {"axis": -1}),
    *(
        Case(
            "ScatterElements",
            (X, whole(1, 3, 3, low=-2, high=2), numbers(1, 3, 3, seed=4)),
            {"reduction": reduction},
            18,
        )
        for reduction in ("add", "mul", "max", "min")
    ),
    Case("ScatterND", (X, vector(1, 2, -2, 0).reshape(2, 2), numbers(2, 4, seed=4))),
    *(
        Case(
            "ScatterND",
            (X, vector(1, 2, 0, 0, 1, 2).reshape(3, 2), numbers(3, 4, seed=4)),
            {"reduction": reduction},
            18,
        )
        for reduction in ("add", "mul", "max", "min")
    ),
    Case("ScatterND", (X, whole(4, 3, low=-2, high=2), numbers(4, seed=4)), {"reduction": "add"}, 16),
    *(Case("Trilu", (X, scalar(k)), {"upper": upper}) for k in (-1, 1) for upper in (0, 1)),
    Case("Trilu", (X,)),
    # products
    *(
        Case("MatMul", (numbers(*left), numbers(*right, seed=1)))
        for left, right in [((4,), (4,)), ((2, 3, 4), (4,)), ((3,), (2, 3, 4)), ((5, 1, 3, 4), (2, 4, 2))]
    ),
    Case("Gemm", (numbers(3, 4), numbers(4, 2), numbers(2))),
    Case("Gemm", (numbers(3, 4), numbers(4, 2)), {"alpha": 0.3}),
    Case(
        "Gemm",
        (numbers(4, 3), numbers(2, 4), numbers(3, 1)),
        {"transA": 1, "transB": 1, "alpha": 0.5, "beta": 2.0},
        7,
    ),
    *(
        Case("Einsum", (X, numbers(2, 4, 5, seed=1)), {"equation": equation})
        for equation in ("bij,bjk->bik", "b i j, b j k -> i k", "...ij,...jk->...ki", "bij,bjk")
    ),
    Case("Conv", (IMAGE, numbers(6, 2, 3, 3), numbers(6)), {"group": 2, "pads": [1, 0, 2, 1]}),
    Case("ConvTranspose", (IMAGE, numbers(4, 3, 3, 2), numbers(6)), {"group": 2, "strides": [2, 1]}),
    # pooling
    Case("MaxPool", (IMAGE,), {"kernel_shape": [2, 3], "strides": [2, 2], "pads": [0, 1, 1, 1]}, 8),
    Case("AveragePool", (IMAGE,), {"kernel_shape": [2, 3], "pads": [0, 1, 1, 1]}, 7),
    Case("LpPool", (IMAGE,), {"kernel_shape": [2, 3], "pads": [0, 1, 1, 1], "p": 3}, 11),
    *(Case(f"Global{kind}Pool", (IMAGE,)) for kind in ("Average", "Max", "Lp")),
    Case("GlobalLpPool", (IMAGE,), {"p": 3}),
    # normalisation
    *(
        Case(
            "BatchNormalization",
            (IMAGE, *(numbers(4, seed=seed) for seed in (1, 2, 3)), POSITIVE[0, 0]),
            {"epsilon": 0.01},
            opset,
        )
        for opset in (7, 9, 14, 15)
    ),
    Case("InstanceNormalization", (IMAGE, numbers(4), numbers(4, seed=1)), {"epsilon": 0.01}),
    Case("LayerNormalization", (X, numbers(4), numbers(4, seed=1))),
    Case("LayerNormalization", (X, numbers(3, 4)), {"axis": 1, "epsilon": 0.01}),
    Case("GroupNormalization", (IMAGE, numbers(2), numbers(2, seed=1)), {"num_groups": 2}, 18),
    Case("GroupNormalization", (IMAGE, numbers(4), numbers(4, seed=1)), {"num_groups": 2}, 21),
    Case("RMSNormalization", (X, numbers(4)), {"epsilon": 0.01}, 23),
    *(Case("LpNormalization", (X,), {"axis": axis, "p": p}) for axis, p in [(-1, 2), (1, 1)]),
    Case("LRN", (IMAGE,), {"size": 3, "alpha": 0.2, "beta": 0.6, "bias": 1.5}),
    Case("MeanVarianceNormalization", (IMAGE,)),
    Case("MeanVarianceNormalization", (IMAGE,), {"axes": [0, 2]}),
    # reductions
    *(
        case
        for kind in ["L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare"]
        for case in (
            Case(f"Reduce{kind}", (POSITIVE,), {"axes": [-1, 0]}, 11),
            Case(f"Reduce{kind}", (POSITIVE,), {"keepdims": 0}, 11),
            Case(f"Reduce{kind}", (POSITIVE, vector(1, -1)), {}, 18),
            Case(f"Reduce{kind}", (POSITIVE,), {"keepdims": 0}, 18),
            Case(f"Reduce{kind}", (POSITIVE, vector()), {}, 18),
        )
    ),
    *(
        Case(f"Reduce{kind}", (POSITIVE,), {"noop_with_empty_axes": 1}, 18)
        for kind in ("Max", "Mean", "Min", "Prod", "Sum")
    ),
    Case("ReduceSum", (X, vector(1)), {"keepdims": 0}, 13),
    *(
        Case("CumSum", (X, scalar(axis)), {"exclusive": exclusive, "reverse": reverse})
        for axis, exclusive, reverse in [(0, 0, 0), (-1, 1, 0), (1, 0, 1), (2, 1, 1)]
    ),
    Case("TopK", (X,), {"k": 2, "axis": 1}, 9, 2),
    Case("TopK", (X, vector(2)), {"axis": 1, "largest": 0}, 11, 2),
    # recurrent
    *(
        Case(
            kind,
            (
                numbers(5, 2, 3),
                0.5 * numbers(directions, gates * 4, 3, seed=1),
                0.5 * numbers(directions, gates * 4, 4, seed=2),
                0.5 * numbers(directions, gates * 8, seed=3) if whole else None,
                None,
                *((0.5 * numbers(directions, 2, 4, seed=4),) * (1 + (kind == "LSTM")) if whole else ()),
            ),
            {"hidden_size": 4, "direction": direction}
            | ({"linear_before_reset": 1} if kind == "GRU" else {}),
            14,
            outputs,
        )
        for kind, gates, outputs in [("LSTM", 4, 3), ("GRU", 3, 2), ("RNN", 1, 2)]
        for direction, directions in [("forward", 1), ("reverse", 1), ("bidirectional", 2)]
        for whole in (False, True)
    ),
    # resizing and padding
    Case("Pad", (X, vector(0, 1, -1, 2, 0, 1), scalar(1.5, np.float32))),
    Case("Resize", (IMAGE, None, np.array([1, 1, 2, 1.5], np.float32)), {"mode": "linear"}, fixed=(2,)),
    Case("Upsample", (IMAGE,), {"mode": "nearest", "scales": [1.0, 1.0, 2.0, 3.0]}, 7),
    Case("Upsample", (IMAGE, np.array([1, 1, 2, 2], np.float32)), {"mode": "linear"}, 9, fixed=(1,)),
    Case("GridSample", (IMAGE, np.tanh(numbers(2, 3, 4, 2))), {}, 16),
    Case("Cast", (X,), {"to": TensorProto.DOUBLE}),
    Case("CastLike", (X, scalar(1, np.float64)), fixed=(1,)),
]
