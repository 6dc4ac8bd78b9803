"""Every operator of the table computes what ONNX Runtime computes, with derivatives."""

from dataclasses import replace

import numpy as np
import pytest
import torch

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from onnx import TensorProto

from tests.network.onnx.cases import tensor
from tests.network.onnx.operators.cases import Case, assert_differentiable, assert_same, assert_same_if_taken
from tests.network.onnx.operators.smooth import SMOOTH
from tests.network.onnx.operators.stepped import STEPPED
from tuckertree._base.errors import TuckertreeError
from tuckertree.network.onnx.operators import OPSETS, TABLE


def test_every_operator_of_the_table_is_compared():
    assert {case.kind for case in (*SMOOTH, *STEPPED)} == set(TABLE)


@pytest.mark.parametrize("case", [*SMOOTH, *STEPPED], ids=str)
def test_an_operator_gives_what_onnx_runtime_gives(case):
    assert_same(case)


@pytest.mark.parametrize("opset", [8, 10, 12, 20, OPSETS[-1]])
@pytest.mark.parametrize("kind", sorted(TABLE))
def test_an_operator_follows_the_opset(kind, opset):
    for case in (*SMOOTH, *STEPPED):
        if case.kind == kind:
            assert_same_if_taken(replace(case, opset=opset))


@pytest.mark.parametrize("case", SMOOTH, ids=str)
def test_an_operator_is_differentiated(case):
    assert_differentiable(case)


DECLINED = {
    "unknown": ("Unknown", {}, 17, 1),
    "random": ("RandomNormal", {"shape": [2]}, 17, 1),
    "before opset 7": ("Relu", {}, 6, 1),
    "a later opset": ("Relu", {}, OPSETS[-1] + 1, 1),
    "indices of maxima": ("MaxPool", {"kernel_shape": [2, 2]}, 12, 2),
    "statistics of training": ("BatchNormalization", {}, 9, 5),
    "training": ("BatchNormalization", {"training_mode": 1}, 15, 1),
    "statistics for each place": ("BatchNormalization", {"spatial": 0}, 7, 1),
    "means": ("LayerNormalization", {}, 17, 3),
    "unsorted": ("TopK", {"sorted": 0}, 11, 2),
    "gates of another kind": ("GRU", {"hidden_size": 4}, 14, 1),
    "clipped": ("LSTM", {"hidden_size": 4, "clip": 1.0}, 14, 1),
    "other activations": ("RNN", {"hidden_size": 4, "activations": [b"Relu"]}, 14, 1),
    "batch first": ("LSTM", {"hidden_size": 4, "layout": 1}, 14, 1),
    "antialias": ("Resize", {"mode": "linear", "antialias": 1}, 18, 1),
    "crop": ("Resize", {"coordinate_transformation_mode": "tf_crop_and_resize"}, 13, 1),
    "aspect ratio": ("Resize", {"keep_aspect_ratio_policy": "not_larger"}, 18, 1),
    "text": ("Cast", {"to": TensorProto.STRING}, 13, 1),
    "unsigned": ("Cast", {"to": TensorProto.UINT32}, 13, 1),
    "constant text": ("Constant", {"value_string": "a"}, 13, 1),
    "dilated mean": ("AveragePool", {"kernel_shape": [2], "dilations": [2]}, 19, 1),
    "steps over gaps, same": (
        "LpPool",
        {"kernel_shape": [1], "strides": [2], "auto_pad": "SAME_UPPER"},
        18,
        1,
    ),
    "mask of old": ("Dropout", {}, 10, 2),
    "nothing to reduce": ("ReduceL2", {"noop_with_empty_axes": 1}, 18, 1),
}


@pytest.mark.parametrize(("kind", "attributes", "opset", "outputs"), DECLINED.values(), ids=DECLINED)
def test_what_cannot_be_exact_is_declined(kind, attributes, opset, outputs):
    assert Case(kind, (), attributes, opset, outputs).function() is None


def test_float16_is_computed_in_float32():
    values = np.array([0.5, 2.0], np.float16)
    for to in (TensorProto.FLOAT16, TensorProto.BFLOAT16):
        assert Case("Cast", (), {"to": to}).function()(torch.ones(2)).dtype == torch.float32
    for kind in ("Constant", "ConstantOfShape"):
        function = Case(kind, (), {"value": tensor("", values[:1])}).function()
        found = function(*[torch.tensor([2])][: kind != "Constant"])
        assert found.dtype == torch.float32
        assert (found == 0.5).all()


def test_one_output_is_no_tuple():
    x = torch.arange(6.0)
    assert Case("Split", (), {"num_outputs": 2}, 18, 1).function()(x).tolist() == [0, 1, 2]
    assert Case("TopK", (), {}, 11, 1).function()(x, torch.tensor([2])).tolist() == [5, 4]


def test_a_dropout_in_training_mode_is_refused():
    function = Case("Dropout", (), {}, 13).function()
    with pytest.raises(TuckertreeError, match="training mode"):
        function(torch.ones(2), None, torch.tensor(True))


def test_a_fraction_of_integers_is_refused():
    function = Case("ReduceLogSumExp", (), {}, 18).function()
    with pytest.raises(TuckertreeError, match="cast them to float"):
        function(torch.ones(2, dtype=torch.int64))


def test_a_reflection_beyond_the_axis_is_refused():
    function = Case("Pad", (), {"mode": "reflect"}, 13).function()
    with pytest.raises(TuckertreeError, match="reflects 3 elements of an axis of 2"):
        function(torch.ones(2), torch.tensor([3, 0]))


@pytest.mark.parametrize(
    "case",
    [
        Case("LpPool", (), {"kernel_shape": [2, 2]}, 18),
        Case("GlobalLpPool", ()),
        Case("LpNormalization", ()),
        Case("MeanVarianceNormalization", ()),
        Case("ReduceL2", (), {}, 18),
    ],
    ids=str,
)
def test_derivatives_at_zero_are_finite(case):
    x = torch.zeros(1, 2, 4, 4, requires_grad=True)
    case.function()(x).sum().backward()
    assert x.grad.isfinite().all()


def test_shared_values_are_not_written_into():
    filled = Case("ConstantOfShape", (), {"value": tensor("", np.ones(1, np.float32))}).function()
    x = filled(torch.tensor([2, 3]))
    y = Case("ScatterND", (), {}, 18).function()(x, torch.tensor([[1]]), torch.full((1, 3), 5.0))
    assert y.tolist() == [[1] * 3, [5] * 3]
    assert x.tolist() == [[1] * 3] * 2
