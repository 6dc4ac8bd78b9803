"""What a model is run on: calibration inputs where there are any, otherwise an example."""

from __future__ import annotations

from tuckertree._base.errors import UsageError
from tuckertree.calibration import Calibration
from tuckertree.network.onnx.calibrating import feeds_of
from tuckertree.network.onnx.examples import example_feed, is_made_up
from tuckertree.network.onnx.graph import Graph
from tuckertree.network.onnx.inputs import (
    Feed,
    Sizes,
    Values,
    batch_axes,
    fixed_batch,
    is_divisible,
    samples_from,
    samples_of,
)

_COMPARED = 32
"""At most so many calibration images are run through the saved file."""


def first_sample(graph: Graph, input_size: Sizes, input_values: Values, images: Calibration | None) -> Feed:
    """One sample: a calibration image where there are any, so that sizes are theirs.

    Raises
    ------
    UsageError
        If it has another size than was given, the size of an input is not known, or values are given beside images.
    TuckertreeError
        If the calibration inputs do not belong to the model.
    """
    if images is None:
        feed = example_feed(graph, input_size, input_values=input_values)
    elif input_values:
        raise UsageError("--input-values cannot be combined with --calibration, which gives all inputs")
    else:
        feed = next(feeds_of(images, graph, images.batch_size))
        if input_size is not None:
            _check_sizes(feed, example_feed(graph, input_size), graph)
    is_free = fixed_batch(graph) is None and is_divisible(feed, graph)
    return samples_from(feed, graph, [0]) if is_free else feed


def _check_sizes(feed: Feed, wanted: Feed, graph: Graph) -> None:
    axes = batch_axes(graph)
    for name, x in feed.items():
        found, size = (
            [n for axis, n in enumerate(array.shape) if axis not in axes[name]] for array in (x, wanted[name])
        )
        if found != size:
            raise UsageError(f"the calibration images are {found}, --input-size says {size}")


def trial_feeds(
    graph: Graph, input_size: Sizes, input_values: Values, images: Calibration | None
) -> tuple[list[Feed], str]:
    """What the written file and the original one are compared on, and what to call it."""
    if images is None:
        is_random = is_made_up(graph, input_values)
        name = "one random input" if is_random else "the values given"
        return [example_feed(graph, input_size, input_values=input_values)], name
    feeds = list(feeds_of(images, graph, _COMPARED))
    return feeds, f"{sum(map(samples_of, feeds))} calibration images"
