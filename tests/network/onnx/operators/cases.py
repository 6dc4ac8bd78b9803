"""One-node models: what the table gives beside what ONNX Runtime gives."""

from dataclasses import dataclass, field

import numpy as np
import pytest
import torch

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
from onnx import helper  # noqa: E402
from onnxruntime.capi import onnxruntime_pybind11_state as state  # noqa: E402

from tests.network.onnx.cases import numbers  # noqa: E402
from tuckertree.network.onnx.operators import Operation, function_of  # noqa: E402

REFUSALS = (
    state.Fail,
    state.InvalidArgument,
    state.InvalidGraph,
    state.NotImplemented,
    state.RuntimeException,
)


@dataclass(frozen=True)
class Case:
    """A node with its inputs; those at ``fixed`` are not differentiated though they are floats."""

    kind: str
    inputs: tuple
    attributes: dict = field(default_factory=dict)
    opset: int = 17
    outputs: int = 1
    fixed: tuple = ()

    def __str__(self):
        shown = ",".join(f"{name}={value}" for name, value in self.attributes.items())
        return f"{self.kind}-{self.opset}({shown[:60]})"

    def function(self):
        node = helper.make_node(self.kind, [], [], **self.attributes)
        read = {each.name: helper.get_attribute_value(each) for each in node.attribute}
        return function_of(Operation(self.kind, read, self.opset, self.outputs))


def vector(*values):
    return np.array(values, np.int64)


def scalar(value, dtype=np.int64):
    return np.array(value, dtype)


def run_onnx(case):
    """Outputs in ONNX Runtime; its error if it refuses the node."""
    names = ["" if each is None else f"x{place}" for place, each in enumerate(case.inputs)]
    node = helper.make_node(
        case.kind, names, [f"y{place}" for place in range(case.outputs)], **case.attributes
    )
    given = {name: each for name, each in zip(names, case.inputs, strict=True) if name}
    inputs = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(each.dtype), each.shape)
        for name, each in given.items()
    ]
    outputs = [onnx.ValueInfoProto(name=name) for name in node.output]
    model = helper.make_model(
        helper.make_graph([node], "graph", inputs, outputs),
        opset_imports=[helper.make_opsetid("", case.opset)],
        ir_version=10,
    )
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session.run(None, given)


def run_torch(case, function):
    """Outputs of the table's function; fails if it writes into an input."""
    given = [None if each is None else torch.from_numpy(each.copy()) for each in case.inputs]
    found = function(*given)
    for before, after in zip(case.inputs, given, strict=True):
        assert after is None or np.array_equal(before, after.numpy(), equal_nan=before.dtype.kind == "f")
    return [each.numpy() for each in (found if isinstance(found, tuple) else (found,))]


def assert_same(case, *, tolerance=2e-5):
    """The function of a node gives what ONNX Runtime gives: values, shapes and types."""
    function = case.function()
    assert function is not None, "declined"
    expected, found = run_onnx(case), run_torch(case, function)
    assert len(found) == len(expected)
    for left, right in zip(found, expected, strict=True):
        assert left.dtype == right.dtype
        assert left.shape == right.shape
        np.testing.assert_allclose(left, right, rtol=tolerance, atol=tolerance)


def assert_differentiable(case):
    """The derivatives of a function are those of finite differences."""
    leaves = []
    given = []
    for place, each in enumerate(case.inputs):
        if each is None:
            given.append(None)
        elif each.dtype.kind == "f" and place not in case.fixed:
            leaves.append(torch.from_numpy(each.astype(np.float64)).requires_grad_())
            given.append(leaves[-1])
        else:
            given.append(torch.from_numpy(each.copy()))
    assert torch.autograd.gradcheck(lambda *_: case.function()(*given), leaves, fast_mode=True)


def booleans(*shape, seed=0):
    return numbers(*shape, seed=seed) > 0


def whole(*shape, low=-5, high=6, seed=0, dtype=np.int64):
    return np.random.default_rng([seed, *shape]).integers(low, high, shape).astype(dtype)


def assert_same_if_taken(case, **options):
    """As :func:`assert_same`, where ONNX Runtime runs the node and the table has the variant."""
    try:
        run_onnx(case)
    except REFUSALS:
        return
    if case.function() is not None:
        assert_same(case, **options)
