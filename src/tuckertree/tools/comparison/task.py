"""What is compared: a network, and folds of images that it is fitted to and scored on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import Self

from torch import Tensor, nn

from tuckertree._base.checkpoints import digest
from tuckertree._base.errors import TuckertreeError, first_line
from tuckertree.calibration import output_distances
from tuckertree.compression.network import Network
from tuckertree.compression.networks import OnnxNetwork, TorchNetwork
from tuckertree.measure import evaluate
from tuckertree.tools.comparison.cells import Score
from tuckertree.tools.data import ImageSet, batches
from tuckertree.tools.onnx_images import OnnxImages

_BATCH = 128
Images = Tensor | ImageSet | OnnxImages
ScoreFunction = Callable[[nn.Module | Path], Mapping[str, float]]
"""From a torch network in evaluation mode, or an ONNX file, to numbers by name, of which more is better."""


def network_of(model: nn.Module | Path, example: Tensor) -> Network:
    """A torch network, or an ONNX file, as what is compressed.

    Raises
    ------
    TuckertreeError
        If it cannot be compressed.
    """
    if isinstance(model, Path):
        return OnnxNetwork(model, input_size=tuple(example.shape[1:]))
    return TorchNetwork(model, example)


@dataclass(frozen=True)
class ImageScore:
    """Top-1 in percent where images have labels, otherwise the outputs' relative distance from the original's.

    Of an ONNX file, which may be no classifier, the distance.

    Attributes
    ----------
    images
        None of them is fitted to.
    original
        What distances are from.
    example
        One input.
    """

    images: ImageSet | OnnxImages
    original: Network
    example: Tensor

    def __call__(self, model: nn.Module | Path) -> dict[str, float]:
        """``top1`` or ``distance``."""
        if isinstance(model, nn.Module) and isinstance(self.images, ImageSet) and self.images.labelled:
            return {"top1": evaluate(model, batches(self.images, _BATCH), device=self.example.device).top1}
        module = model if isinstance(model, nn.Module) else network_of(model, self.example).module
        images = self.original.images(self.images)
        return {"distance": output_distances(self.original.module, [module], images)[0]}


@dataclass(frozen=True)
class Fold:
    """Images that a network is fitted to, and its score on others.

    Attributes
    ----------
    score
        Of a network, or the ONNX file that it is.
    count
        Of the images that it is scored on.
    calibration
        Unlabelled images, none of them among those; None where every method has the weights alone.
    """

    score: ScoreFunction
    count: int
    calibration: Images | None = None

    def scored(self, model: nn.Module | Path) -> dict[str, float]:
        """Numbers of a network.

        Raises
        ------
        TuckertreeError
            If there are none, one is not finite, or the score fails.
        """
        try:
            found = {name: float(value) for name, value in self.score(model).items()}
        except TuckertreeError:
            raise
        except Exception as error:
            raise TuckertreeError(
                f"it cannot be scored: {type(error).__name__}: {first_line(error)}"
            ) from error
        if not found:
            raise TuckertreeError("it cannot be scored: the score has no numbers")
        wrong = next((name for name, value in found.items() if not isfinite(value)), None)
        if wrong is not None:
            raise TuckertreeError(f"it cannot be scored: {wrong} is not finite")
        return found


@dataclass(frozen=True)
class Task:
    """A network and the images that all methods are given.

    Attributes
    ----------
    name
        Of the network, as the user knows it.
    model
        In evaluation mode, on the CPU; or an ONNX file.
    example
        One input.
    folds
        In each a network of its own is fitted; scores are means over the images of all.
    data, calibration
        What is scored on, and fitted to, for people.
    settings
        More that describes how images become inputs, as JSON data.

    Examples
    --------
    >>> import tempfile, torch
    >>> from tuckertree.tools.comparison import Fold, Settings, Task, cells_of, measure_cell
    >>> model = torch.nn.Sequential(torch.nn.Conv2d(1, 16, 3), torch.nn.ReLU(), torch.nn.Conv2d(16, 16, 3)).eval()
    >>> images = torch.rand(40, 1, 12, 12)
    >>> def closeness(compressed):
    ...     return {"dB": float(-10 * (compressed(images) - model(images)).square().mean().clamp(1e-9).log10())}
    >>> folds = [Fold(closeness, count=40, calibration=torch.rand(64, 1, 12, 12))]
    >>> task = Task("mine", model, images[:1], folds, data="noise", calibration="noise")
    >>> found = measure_cell(task, cells_of(["svd"], ["1.5x"])[0], Settings())
    >>> list(found.score.numbers)
    ['dB']
    """

    name: str
    model: nn.Module | Path
    example: Tensor
    folds: Sequence[Fold]
    data: str
    calibration: str | None = None
    settings: Mapping[str, object] = field(default_factory=dict)

    @classmethod
    def on_images(
        cls,
        name: str,
        model: nn.Module | Path,
        example: Tensor,
        images: ImageSet | OnnxImages,
        calibration: ImageSet | OnnxImages | None = None,
        settings: Mapping[str, object] | None = None,
    ) -> Self:
        """One fold, scored as :class:`ImageScore` says.

        Raises
        ------
        TuckertreeError
            If the network cannot be compressed.
        """
        score = ImageScore(images, network_of(model, example), example)
        folds = [Fold(score, len(images), calibration)]
        fitted = calibration.source if calibration else None
        return cls(name, model, example, folds, images.source, fitted, settings or {})

    @property
    def network(self) -> Network:
        """As what is compressed, opened anew."""
        return network_of(self.model, self.example)

    @property
    def is_fitted(self) -> bool:
        """Whether there are images to fit to in all folds."""
        return all(fold.calibration is not None for fold in self.folds)

    def score(self, models: Sequence[nn.Module | Path]) -> Score:
        """Mean of the folds' scores, each of a network of its own.

        Raises
        ------
        TuckertreeError
            As of :meth:`Fold.scored`.
        """
        count = sum(fold.count for fold in self.folds)
        found = [
            (fold.count / count, fold.scored(model)) for fold, model in zip(self.folds, models, strict=True)
        ]
        return Score.of({name: sum(w * each[name] for w, each in found) for name in found[0][1]}, count)

    def describe(self) -> dict[str, object]:
        """What has to be the same for cells to be comparable, as JSON data."""
        fitted = self.folds[0].calibration
        return {
            "model": self.name,
            "network": digest(self.network.module.state_dict().items()),
            "input": list(self.example.shape[1:]),
            "data": self.data,
            "data images": sum(fold.count for fold in self.folds),
            "calibration": self.calibration,
            "calibration images": 0 if fitted is None else len(fitted),
            **({"folds": len(self.folds)} if len(self.folds) > 1 else {}),
            **self.settings,
        }
