"""What has to fit before a run starts: images, classes, teacher and device."""

from __future__ import annotations

import torch
from torch import nn

from tuckertree._base.errors import UsageError, first_line
from tuckertree.measure.forward import run as run_once
from tuckertree.tools.data import ImageSet, ImageStream
from tuckertree.tools.settings import Settings
from tuckertree.tools.training.randomness import shuffled


def split_validation(
    images: ImageSet | ImageStream, settings: Settings, validation: ImageSet | None = None
) -> tuple[ImageSet | ImageStream, ImageSet | None]:
    """Take the validation images out of the training images; which, does not depend on the seed.

    Raises
    ------
    UsageError
        If there are no labels, too few images, or a part of a stream is asked for.
    """
    if isinstance(images, ImageStream):
        if (settings.validation and validation is None) or settings.limit_train:
            raise UsageError(
                f"{images.source} is a stream, of which no part can be taken: set validation to 0, "
                "or give validation images, and leave out limit_train"
            )
        return images, validation
    if not images.labelled:
        raise UsageError(f"{images.source} has no labels to train with")
    order = shuffled(len(images), "validation").tolist()[: settings.limit_train]
    held = 0 if validation is not None else round(settings.validation * len(order))
    if held == len(order):
        raise UsageError(f"{len(order)} images are too few to keep {settings.validation:g} for validation")
    if held:
        validation = images.subset(sorted(order[:held]))
    # In the order of the source: parquet files are read a group of rows at a time.
    return images.subset(sorted(order[held:])), validation


def check_classes(network: nn.Module, images: ImageSet | ImageStream) -> int:
    """Refuse images whose classes are not those of the network's outputs, and say how many these are.

    Raises
    ------
    UsageError
        If their numbers differ, or a label has no output.
    """
    outputs = _outputs(network, images)
    known = len(images.classes) if images.classes else None
    largest = -1  # a stream's labels are looked at as they come
    if isinstance(images, ImageSet):
        labels = [images.label(number) for number in range(len(images))]
        largest = max(labels)
        if min(labels) < 0:
            raise UsageError(
                f"{images.source} has no label for {sum(label < 0 for label in labels)} of {len(labels)} images; "
                "leave those out"
            )
    if (known or outputs) != outputs or largest >= outputs:
        found = known or largest + 1
        raise UsageError(
            f"{images.source} has {found} classes and the network {outputs} outputs; give images of {outputs} classes"
        )
    return outputs


def check_teacher(teacher: nn.Module, network: nn.Module, images: ImageSet | ImageStream) -> None:
    """Refuse a teacher of other outputs.

    Raises
    ------
    UsageError
        If their numbers differ.
    """
    wanted, outputs = _outputs(network, images), _outputs(teacher, images)
    if wanted != outputs:
        raise UsageError(
            f"the teacher has {outputs} outputs and the network {wanted}; it must be the original"
        )


def _outputs(network: nn.Module, images: ImageSet | ImageStream) -> int:
    example = torch.zeros(1, 3, *images.preprocessing.size)
    logits = run_once(network, example, "images")
    if not isinstance(logits, torch.Tensor) or logits.ndim != 2:
        raise UsageError("training needs a network that gives logits [batch, classes]")
    return logits.shape[1]


def check_device(name: str, settings: Settings) -> None:
    """Refuse a device that is not there, or that the settings' strategy cannot use.

    Raises
    ------
    UsageError
        If it cannot be used; the message says why.
    """
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(f"device {name!r} cannot be used here: {first_line(error)}") from error
    if settings.strategy == "fsdp" and torch.device(name).type != "cuda":
        raise UsageError(f"strategy fsdp works on CUDA alone, not on {name!r}; use auto, or device cuda")
