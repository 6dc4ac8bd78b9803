"""Images on which compressed networks are compared with the original: one part to search with, another to prove."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, RandomSampler

from tuckertree._base.errors import TuckertreeError, UsageError, first_line
from tuckertree._base.names import refuse_name_of_images
from tuckertree._base.progress import ProgressCallback
from tuckertree.calibration import Calibration
from tuckertree.calibration.batches import batch_size, join, narrow
from tuckertree.calibration.distances import IncomparableError, answers_of, float_outputs, squared_errors
from tuckertree.compression.accuracy.loss import Loss
from tuckertree.compression.accuracy.parts import Part
from tuckertree.measure import ExampleInputs
from tuckertree.measure.accuracy import check_labels

if TYPE_CHECKING:
    from tuckertree.compression.network import Network

SEARCH, PROOF = 0, 1
LabelledData = Iterable[Any] | Dataset[Any]
"""Images with labels: a data set of pairs, or pairs of batches, images ``[N, ...]`` and integer labels ``[N]``."""
_BATCH = 64
_ANEW = "the images to search with and to prove come in another order each time"
_CLUSTER = 8
"""Images of a batch whose distance counts as one sample."""


class Trial(ABC):
    """Compares networks with the original on images in two parts, :data:`SEARCH` and :data:`PROOF`.

    Attributes
    ----------
    classes
        Of a classifier, once the original has run.
    """

    classes: int | None = None

    @property
    @abstractmethod
    def images(self) -> Calibration:
        """All images without labels."""

    @abstractmethod
    def begin(self, original: nn.Module, tick: ProgressCallback) -> None:
        """Run the original on all images.

        Raises
        ------
        TuckertreeError
            If it does not run, there are too few images, or its outputs cannot be compared.
        """

    @abstractmethod
    def loss(self, model: nn.Module, part: int, z: float) -> Loss:
        """What a network lost on one part; ``z`` standard deviations make its interval."""


class LabelledTrial(Trial):
    """By top-1 on labelled images."""

    def __init__(self, network: Network, data: LabelledData) -> None:
        self._network, self._pairs = network, LabelledBatches(data)
        size = network.batch or network.images(()).batch_size
        self._parts = [Part(self._pairs, (1, 1), part, size) for part in (SEARCH, PROOF)]
        self._right: list[Tensor] = []
        self._labels: list[Tensor] = []

    @property
    def images(self) -> Calibration:
        """As :attr:`Trial.images`."""
        return self._network.images(_Inputs(self._pairs))

    def begin(self, original: nn.Module, tick: ProgressCallback) -> None:
        """As :meth:`Trial.begin`."""
        for part in (SEARCH, PROOF):
            tick("original", part, 2)
            right, labels = self._answers(original, part)
            self._right.append(right)
            self._labels.append(labels)
        if not all(map(len, self._right)):
            raise UsageError(
                "a budget of accuracy needs two labelled images at least: to search, and to prove"
            )

    def loss(self, model: nn.Module, part: int, z: float) -> Loss:
        """As :meth:`Trial.loss`."""
        right, labels = self._answers(model, part)
        if not torch.equal(labels, self._labels[part]):
            raise UsageError(f"{_ANEW}; give them in one order")
        return Loss.of_answers(self._right[part], right, z)

    def _answers(self, model: nn.Module, part: int) -> tuple[Tensor, Tensor]:
        """Which images are answered rightly, and their labels."""
        right, known = [torch.zeros(0, dtype=torch.bool)], [torch.zeros(0, dtype=torch.int64)]
        for inputs, labels in self._parts[part]:
            seen, missing = 0, (self._network.batch or 0) - len(labels)
            whole = join([inputs, *[narrow(inputs, 0, 1)] * missing]) if missing > 0 else inputs
            for batch in self._network.images([whole]):
                outputs = float_outputs(model, batch, "the labelled images")
                answers = answers_of(outputs)
                if answers is None:
                    raise TuckertreeError(
                        "top-1 needs a classifier that gives logits [images, classes]; without labels give agreement"
                    )
                self.classes = outputs[0].shape[1]
                own = labels[seen : seen + len(answers)]
                check_labels(own, self.classes)
                right.append(answers[: len(own)] == own)
                known.append(own)
                seen += len(answers)
        return torch.cat(right), torch.cat(known)


class UnlabelledTrial(Trial):
    """By agreement with the original: equal answers of a classifier, or the distance of the outputs."""

    def __init__(self, images: Calibration, shares: tuple[int, ...]) -> None:
        self._images = images
        self._parts = [part_of(images, shares, part) for part in (SEARCH, PROOF)]
        self._original: nn.Module | None = None
        self._answers: list[Tensor] = []

    @classmethod
    def of_labelled(cls, network: Network, data: LabelledData) -> UnlabelledTrial:
        """By images whose labels are not looked at."""
        return cls(network.images(_Inputs(LabelledBatches(data))), (1, 1))

    @classmethod
    def divided(cls, images: Calibration) -> tuple[Calibration, UnlabelledTrial]:
        """Half of some images to fit to, and the rest to search and to prove."""
        shares = (1, 1, 2)
        return part_of(images, shares, 2), cls(images, shares)

    @property
    def images(self) -> Calibration:
        """As :attr:`Trial.images`."""
        return self._images

    def begin(self, original: nn.Module, tick: ProgressCallback) -> None:
        """As :meth:`Trial.begin`."""
        self._original = original
        for part in (SEARCH, PROOF):
            tick("original", part, 2)
            if (first := next(self._parts[part].whole(), None)) is None:
                raise UsageError(
                    "a budget of accuracy needs images to calibrate with, to search and to prove: give more of them"
                )
            if not float_outputs(original, first):
                raise UsageError(
                    "no output is of floating-point numbers, so networks have no agreement to keep"
                )
            if (answers := self._classes(original, part)) is None:
                return
            self._answers.append(answers)

    def loss(self, model: nn.Module, part: int, z: float) -> Loss:
        """As :meth:`Trial.loss`.

        Raises
        ------
        UsageError
            If the sizes of the outputs depend on values.
        """
        assert self._original is not None
        if self._answers:
            answers, wanted = self._classes(model, part), self._answers[part]
            assert answers is not None
            return Loss.of_equality((answers == wanted) & (wanted >= 0), z)
        part_images = self._parts[part].in_batches(min(_CLUSTER, self._images.batch_size))
        try:
            errors = [*squared_errors(self._original, (model,), part_images, in_units=True)]
        except IncomparableError as error:
            raise UsageError(
                f"{error}, so networks have no agreement to keep; give a budget of macs"
            ) from error
        return Loss.of_distance([(error, norm) for norm, (error,) in errors], len(part_images), z)

    def _classes(self, model: nn.Module, part: int) -> Tensor | None:
        """Answers of a network with one output, of logits."""
        found = list[Tensor]()
        for inputs in self._parts[part]:
            outputs = float_outputs(model, inputs)
            answers = answers_of(outputs) if len(outputs) == 1 else None
            if answers is None or len(answers) != batch_size(inputs):
                return None
            found.append(answers)
        return torch.cat(found)


def part_of(images: Calibration, shares: tuple[int, ...], number: int) -> Calibration:
    """One part of calibration images (:class:`Part`)."""
    return Calibration(Part(images, shares, number, images.batch_size), images.batch_size, images.example)


def refuse_shuffled(source: object) -> None:
    """Refuse a DataLoader that shuffles: what is searched with would be proved with.

    Raises
    ------
    UsageError
        If it is one.
    """
    if isinstance(source, DataLoader) and isinstance(source.sampler, RandomSampler):
        raise UsageError(f"{_ANEW}; give a DataLoader without shuffle")


class LabelledBatches:
    """Batches of inputs and labels, to be iterated again and again.

    Raises
    ------
    UsageError
        If the source can be iterated only once, comes in another order each time, or holds something else.
    TuckertreeError
        While it is iterated, if the source fails.
    """

    def __init__(self, source: LabelledData) -> None:
        if isinstance(source, Iterator):
            raise UsageError(
                "the labelled images can be iterated only once; give a list of batches, a DataLoader or a data set"
            )
        refuse_name_of_images(source)
        refuse_shuffled(source)
        if isinstance(source, Dataset) and not isinstance(source, IterableDataset):
            source = DataLoader(source, batch_size=_BATCH)
        elif isinstance(source, tuple) and len(source) == 2:
            source = [source]
        if not isinstance(source, Iterable):
            raise UsageError(f"labelled images cannot come from a {type(source).__name__}")
        self._source: Iterable[Any] = source

    def __iter__(self) -> Iterator[tuple[ExampleInputs, Tensor]]:
        batches = iter(self._source)
        while True:
            try:
                batch = next(batches)
            except StopIteration:
                return
            except TuckertreeError:
                raise
            except Exception as error:
                raise TuckertreeError(f"the source of labelled images fails: {first_line(error)}") from error
            yield _pair(batch)


class _Inputs:
    """The inputs of labelled batches alone."""

    def __init__(self, pairs: LabelledBatches) -> None:
        self._pairs = pairs

    def __iter__(self) -> Iterator[ExampleInputs]:
        return (inputs for inputs, _ in self._pairs)


def _pair(batch: object) -> tuple[ExampleInputs, Tensor]:
    if isinstance(batch, list | tuple) and len(batch) == 2:
        inputs, labels = (torch.from_numpy(x) if isinstance(x, np.ndarray) else x for x in batch)
        is_labels = isinstance(labels, Tensor) and labels.ndim == 1 and not labels.is_floating_point()
        if is_labels and batch_size(inputs) == len(labels):
            return inputs, labels.cpu()
    raise UsageError(
        "labelled images are pairs of batches: images [N, ...] and integer labels [N], as a DataLoader gives them"
    )
