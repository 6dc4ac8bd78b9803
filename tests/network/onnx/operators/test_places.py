"""Slices, pads and indices: in and out of reach, from the start and from the end."""

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("hypothesis")
from hypothesis import given
from hypothesis import strategies as st

from tests.network.onnx.cases import numbers
from tests.network.onnx.operators.cases import (
    Case,
    assert_differentiable,
    assert_same_if_taken,
    scalar,
    vector,
    whole,
)
from tests.strategies import examples

SIZES = st.lists(st.integers(1, 5), min_size=1, max_size=4)
FAR = [-(2**63), 2**63 - 1, -(2**31), 2**31 - 1]


@st.composite
def shaped(draw):
    """A tensor and some of its axes, from the start or from the end."""
    sizes = draw(SIZES)
    axes = draw(st.lists(st.integers(0, len(sizes) - 1), unique=True, min_size=1))
    return numbers(*sizes), [axis - len(sizes) * draw(st.integers(0, 1)) for axis in axes]


@given(shaped(), st.data())
@examples(40)
def test_slices(tensor, data):
    x, axes = tensor
    bound = st.lists(st.integers(-8, 8) | st.sampled_from(FAR), min_size=len(axes), max_size=len(axes))
    step = st.integers(-3, 3).filter(bool)
    steps = data.draw(st.lists(step, min_size=len(axes), max_size=len(axes)))
    given_ = (x, *(vector(*each) for each in (data.draw(bound), data.draw(bound), axes, steps)))
    case = Case("Slice", given_, {}, data.draw(st.sampled_from([10, 13])))
    assert_same_if_taken(case)
    assert_differentiable(case)


@given(shaped(), st.sampled_from(["constant", "reflect", "edge", "wrap"]), st.data())
@examples(40)
def test_pads(tensor, mode, data):
    x, axes = tensor
    opset = data.draw(st.sampled_from([10, 11, 13, 18, 19]))
    axes = axes if opset >= 18 else range(x.ndim)
    low = -1 if data.draw(st.booleans()) else 0
    pads = data.draw(st.lists(st.integers(low, 3), min_size=2 * len(axes), max_size=2 * len(axes)))
    if opset < 11:
        case = Case("Pad", (x,), {"mode": mode, "pads": pads, "value": 0.5}, opset)
    else:
        value = data.draw(st.sampled_from([None, scalar(0.5, np.float32)]))
        given_ = (x, vector(*pads), value, vector(*axes))[: 4 if opset >= 18 else 3]
        case = Case("Pad", given_, {"mode": mode}, opset)
    assert_same_if_taken(case)


@given(
    st.lists(st.integers(1, 3), min_size=2, max_size=4), st.integers(0, 1), st.integers(1, 3), st.booleans()
)
@examples(40)
def test_gather_nd(sizes, batch, depth, exact):
    x = numbers(*sizes, 2, 4)
    depth = min(depth, x.ndim - batch)
    leading = x.shape[:batch] + (3,) * (not exact)
    reach = np.array(x.shape[batch : batch + depth])
    places = whole(*leading, depth, low=0, high=1000) % reach
    assert_same_if_taken(Case("GatherND", (x, places - reach * (places % 2)), {"batch_dims": batch}))


@given(shaped(), st.data())
@examples(40)
def test_gather_and_scatter_along_an_axis(tensor, data):
    x, (axis, *_) = tensor
    reach = x.shape[axis]
    places = whole(*x.shape, low=-reach, high=reach)
    assert_same_if_taken(Case("GatherElements", (x, places), {"axis": axis}))
    assert_same_if_taken(Case("Gather", (x, places[..., :1]), {"axis": axis}))
    reduction = data.draw(st.sampled_from(["add", "mul", "max", "min"]))
    updates = numbers(*x.shape, seed=3)
    assert_same_if_taken(
        Case("ScatterElements", (x, places, updates), {"axis": axis, "reduction": reduction}, 18)
    )
    order = np.argsort(
        numbers(*x.shape, seed=4), axis
    )  # each place once, so that the last writer is the only one
    assert_same_if_taken(Case("ScatterElements", (x, order, updates), {"axis": axis}, 13))


@given(
    shaped(),
    st.integers(0, 1),
    st.sampled_from(["Sum", "Mean", "Max", "Min", "Prod", "L1", "L2", "LogSumExp", "SumSquare"]),
)
@examples(40)
def test_reductions(tensor, keep, kind):
    x, axes = tensor
    assert_same_if_taken(Case(f"Reduce{kind}", (x,), {"axes": axes, "keepdims": keep}, 11))
    assert_same_if_taken(Case(f"Reduce{kind}", (x, vector(*axes)), {"keepdims": keep}, 18))
