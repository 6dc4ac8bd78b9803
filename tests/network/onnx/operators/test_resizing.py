"""Resize in every mode whose coordinates are those of ONNX Runtime, and GridSample."""

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("hypothesis")
from hypothesis import given
from hypothesis import strategies as st

from tests.network.onnx.cases import numbers
from tests.network.onnx.operators.cases import Case, assert_differentiable, assert_same_if_taken, whole
from tests.strategies import examples

COORDINATES = [
    "half_pixel",
    "pytorch_half_pixel",
    "align_corners",
    "asymmetric",
    "tf_half_pixel_for_nn",
    "half_pixel_symmetric",
]
ROUNDING = ["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"]
SCALES = st.floats(0.3125, 3.375, width=32)


@st.composite
def resizes(draw, modes=("nearest", "linear", "cubic")):
    """A Resize of one to three spatial axes, by scales or by sizes."""
    mode, opset = draw(st.sampled_from(modes)), draw(st.sampled_from([11, 13, 18, 19]))
    order = 2 if mode == "cubic" else draw(st.integers(1, 3))
    sizes = draw(st.lists(st.integers(1, 9), min_size=order, max_size=order))
    attributes = {"mode": mode, "coordinate_transformation_mode": draw(st.sampled_from(COORDINATES))}
    if mode == "nearest":
        attributes["nearest_mode"] = draw(st.sampled_from(ROUNDING))
    if mode == "cubic":
        attributes["cubic_coeff_a"] = draw(st.sampled_from([-0.75, -0.5]))
        attributes["exclude_outside"] = draw(st.integers(0, 1))
    if opset >= 18 and draw(st.booleans()):
        attributes["axes"] = list(range(2, 2 + order))
    outer = 0 if "axes" in attributes else 2
    x, empty = numbers(2, 3, *sizes), None if opset >= 13 else np.zeros(0, np.float32)
    if draw(st.booleans()):
        scales = draw(st.lists(SCALES | st.sampled_from([1.0, 2.0, 0.5]), min_size=order, max_size=order))
        given_ = (x, empty, np.array([1] * outer + scales, np.float32))
    else:
        targets = draw(st.lists(st.integers(1, 20), min_size=order, max_size=order))
        given_ = (x, empty, empty, np.array([2, 3][:outer] + targets, np.int64))
    return Case("Resize", given_, attributes, opset, fixed=(1, 2))


@given(resizes())
@examples(60)
def test_resize(case):
    assert_same_if_taken(case)


@given(resizes())
@examples(15)
def test_resize_is_differentiated(case):
    assert_differentiable(case)


@given(
    st.sampled_from(["nearest", "linear"]), st.sampled_from([9, 10]), st.lists(SCALES, min_size=2, max_size=2)
)
@examples(60)
def test_before_opset_11(mode, opset, scales):
    kind = "Upsample" if opset == 9 else "Resize"
    if opset == 9:
        scales = [max(scale, 1) for scale in scales]
    scales = np.array([1, 1, *scales], np.float32)
    assert_same_if_taken(Case(kind, (numbers(1, 2, 5, 7), scales), {"mode": mode}, opset))


@given(resizes(modes=("nearest", "linear")), st.sampled_from([np.int32, np.uint8, np.int8]))
@examples(60)
def test_resize_of_integers_to_one_unit(case, dtype):
    x = whole(*case.inputs[0].shape, low=0, high=100, dtype=dtype)
    mine = Case("Resize", (x, *case.inputs[1:]), case.attributes, case.opset)
    assert_same_if_taken(mine, tolerance=1 if case.attributes["mode"] == "linear" else 0)


@given(
    st.sampled_from(["bilinear", "nearest", "bicubic"]),
    st.sampled_from(["zeros", "border", "reflection"]),
    st.integers(0, 1),
    st.sampled_from([16, 20]),
    st.integers(2, 3),
)
@examples(60)
def test_grid_sample(mode, padding, corners, opset, order):
    if opset == 20:
        mode = {"bilinear": "linear", "bicubic": "cubic"}.get(mode, mode)
    sizes = (5, 6, 4)[:order]
    grid = 1.5 * np.tanh(numbers(2, *(4, 3, 2)[:order], order, seed=1))
    attributes = {"mode": mode, "padding_mode": padding, "align_corners": corners}
    assert_same_if_taken(Case("GridSample", (numbers(2, 3, *sizes), grid), attributes, opset))
