"""Calibration inputs of an ONNX file: batches that know which axes of each input are the batch."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from tuckertree._base.errors import TuckertreeError, UsageError
from tuckertree.calibration import Calibration, CalibrationData
from tuckertree.calibration.batches import Batch
from tuckertree.network.onnx.examples import example_feed, is_made_up
from tuckertree.network.onnx.graph import Graph
from tuckertree.network.onnx.inputs import (
    Feed,
    Sizes,
    Values,
    as_feed,
    batch_axes,
    fixed_batch,
    is_divisible,
    samples_from,
    samples_of,
)

_BATCH = 8
"""Samples at a time: ONNX files are often of large images."""
_COMPARED = 32
"""At most so many calibration images are run through the new file."""


class FeedBatch(dict[str, Tensor], Batch):
    """Inputs by name, as a model takes them."""

    graph: Graph

    @classmethod
    def of(cls, feed: Feed, graph: Graph) -> FeedBatch:
        """A batch of arrays in the types that the model takes."""
        batch = cls({name: torch.from_numpy(array) for name, array in feed.items()})
        batch.graph = graph
        return batch

    @property
    def feed(self) -> Feed:
        """The same as arrays."""
        return {name: x.numpy() for name, x in self.items()}

    @property
    def samples(self) -> int:
        """Number of samples."""
        return samples_of(self.feed)

    @property
    def is_free(self) -> bool:
        """As :attr:`Batch.is_free`."""
        first = all(axes == (0,) for axes in batch_axes(self.graph).values())
        return first and fixed_batch(self.graph) is None and is_divisible(self.feed, self.graph)

    def narrow(self, start: int, length: int) -> FeedBatch:
        """As :meth:`Batch.narrow`; where the file prescribes the batch, filled up with the first of them."""
        count, prescribed = self.samples, fixed_batch(self.graph)
        if start == 0 and length == count:
            return self
        if not is_divisible(self.feed, self.graph):
            raise TuckertreeError(
                f"a calibration batch of {count} samples cannot be divided: another axis of the inputs has the same "
                f"size and no name in the file; give batches of at most {prescribed or _BATCH}"
            )
        wanted = [*range(start, start + length)]
        if prescribed == count:
            wanted += wanted[:1] * (prescribed - length)
        return FeedBatch.of(samples_from(self.feed, self.graph, wanted), self.graph)


class OnnxBatches:
    """Whatever calibration inputs there are as batches for a file.

    What does not fill a batch of prescribed size is left out.

    Raises
    ------
    TuckertreeError
        While it is iterated, if inputs do not belong to the model, or do not fill one batch.
    """

    def __init__(self, source: CalibrationData, graph: Graph) -> None:
        self._graph, self._prescribed = graph, fixed_batch(graph)
        self._source = Calibration(source, self._prescribed or _BATCH)

    def __iter__(self) -> Iterator[FeedBatch]:
        size, given = self._source.batch_size, False
        for inputs in self._source.whole():
            batch = FeedBatch.of(as_feed(inputs, self._graph), self._graph)
            count = batch.samples
            for start in range(0, count, size):
                length = min(size, count - start)
                if self._prescribed in (None, length):
                    given = True
                    yield batch.narrow(start, length) if count > size else batch
        if not given and self._prescribed:
            raise TuckertreeError(
                f"the model takes {self._prescribed} samples at a time; there are fewer images"
            )


def onnx_calibration(source: CalibrationData, graph: Graph) -> Calibration:
    """Calibration inputs for a file."""
    return Calibration(OnnxBatches(source, graph), fixed_batch(graph) or _BATCH)


def feeds_of(images: Calibration, start: int, stop: int) -> list[Feed]:
    """The samples ``start`` to ``stop - 1`` as arrays."""
    return [batch.feed for batch in images.part(start, stop) if isinstance(batch, FeedBatch)]


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
        batch = next(iter(images))
        assert isinstance(batch, FeedBatch)
        feed = batch.feed
        if input_size is not None:
            _check_sizes(feed, example_feed(graph, input_size), graph)
    is_free = fixed_batch(graph) is None and is_divisible(feed, graph)
    return samples_from(feed, graph, [0]) if is_free else feed


def trial_feeds(
    graph: Graph, input_size: Sizes, input_values: Values, images: Calibration | None
) -> tuple[list[Feed], str, bool]:
    """What the new file and the original one are compared on, what to call it, and whether it is made up."""
    if images is None:
        made_up = is_made_up(graph, input_values)
        name = "one random input" if made_up else "the values given"
        return [example_feed(graph, input_size, input_values=input_values)], name, made_up
    feeds = feeds_of(images, 0, _COMPARED)
    return feeds, f"{sum(map(samples_of, feeds))} calibration images", False


def _check_sizes(feed: Feed, wanted: Feed, graph: Graph) -> None:
    axes = batch_axes(graph)
    for name, x in feed.items():
        found, size = (
            [n for axis, n in enumerate(array.shape) if axis not in axes[name]] for array in (x, wanted[name])
        )
        if found != size:
            raise UsageError(f"the calibration images are {found}, --input-size says {size}")
