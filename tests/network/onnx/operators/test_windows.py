"""Convolutions and pooling: any kernel, step, dilation and padding."""

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("hypothesis")
from hypothesis import given
from hypothesis import strategies as st

from tests.network.onnx.cases import numbers
from tests.network.onnx.operators.cases import Case, assert_same_if_taken
from tests.strategies import examples

PADDINGS = st.sampled_from(["NOTSET", "NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"])


@st.composite
def windows(draw, *, below_kernel):
    """Order, sizes and the attributes of a kernel that fits into them."""
    order = draw(st.integers(1, 3))

    def each(low, high):
        return draw(st.lists(st.integers(low, high), min_size=order, max_size=order))

    kernel, strides = each(1, 4), each(1, 3)
    dilations = each(1, 2) if draw(st.booleans()) else [1] * order
    sizes = [7 + extra for extra in each(0, 3)]
    attributes = {"kernel_shape": kernel, "strides": strides}
    if max(dilations) > 1:
        attributes["dilations"] = dilations
    auto_pad = draw(PADDINGS)
    if auto_pad != "NOTSET":
        attributes["auto_pad"] = auto_pad
    elif draw(st.booleans()):
        pads = [draw(st.integers(0, k - 1 if below_kernel else 3)) for k in kernel * 2]
        attributes["pads"] = pads
    return sizes, attributes


@given(windows(below_kernel=False), st.sampled_from([(1, 3, 2), (2, 4, 2), (3, 3, 6)]), st.booleans())
@examples(40)
def test_convolutions(window, channels, bias):
    sizes, attributes = window
    groups, inputs, outputs = channels
    weight = numbers(outputs, inputs // groups, *attributes["kernel_shape"], seed=1)
    given_ = (numbers(2, inputs, *sizes), weight, numbers(outputs, seed=2) if bias else None)
    assert_same_if_taken(Case("Conv", given_[: 2 + bias], {**attributes, "group": groups}))


@given(windows(below_kernel=False), st.data(), st.booleans())
@examples(40)
def test_transposed_convolutions(window, data, bias):
    sizes, attributes = window
    if data.draw(st.booleans()):
        steps = attributes["strides"]
        attributes["output_padding"] = [data.draw(st.integers(0, step - 1)) for step in steps]
    elif data.draw(st.booleans()):
        shape = [7 * step for step in attributes["strides"]]
        attributes["output_shape"] = [size + data.draw(st.integers(0, 1)) for size in shape]
    weight = numbers(4, 3, *attributes["kernel_shape"], seed=1)
    given_ = (numbers(2, 4, *sizes), weight, numbers(6, seed=2))
    assert_same_if_taken(Case("ConvTranspose", given_[: 2 + bias], {**attributes, "group": 2}))


@given(windows(below_kernel=True), st.booleans(), st.sampled_from([8, 10, 12, 22]))
@examples(40)
def test_max_pooling(window, ceil, opset):
    sizes, attributes = window
    if opset >= 10:
        attributes["ceil_mode"] = int(ceil)
    assert_same_if_taken(Case("MaxPool", (numbers(2, 3, *sizes),), attributes, opset))


@given(windows(below_kernel=True), st.booleans(), st.booleans(), st.sampled_from([7, 10, 11, 19, 22]))
@examples(40)
def test_average_pooling(window, ceil, counted, opset):
    sizes, attributes = window
    if opset >= 10:
        attributes["ceil_mode"] = int(ceil)
    if opset < 19:
        attributes.pop("dilations", None)
    attributes["count_include_pad"] = int(counted)
    assert_same_if_taken(Case("AveragePool", (numbers(2, 3, *sizes),), attributes, opset))


@given(windows(below_kernel=True), st.booleans(), st.sampled_from([7, 11, 18, 22]), st.integers(1, 3))
@examples(40)
def test_lp_pooling(window, ceil, opset, p):
    sizes, attributes = window
    if opset >= 18:
        attributes["ceil_mode"] = int(ceil)
    else:
        attributes.pop("dilations", None)
    assert_same_if_taken(Case("LpPool", (np.abs(numbers(2, 3, *sizes)),), {**attributes, "p": p}, opset))
