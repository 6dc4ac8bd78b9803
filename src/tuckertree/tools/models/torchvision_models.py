"""The networks of torchvision, with random weights; nothing is downloaded."""

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from tuckertree._base.errors import UsageError
from tuckertree._base.extras import require_extra
from tuckertree.tools.data.preprocessing import Preprocessing
from tuckertree.tools.models.architecture import Architecture, unknown_name

IMAGENET = Preprocessing(size=(224, 224), resize=256)
CLIP_FRAMES = 16
_WITH_AUXILIARY_HEADS = frozenset({"googlenet", "inception_v3"})


def torchvision_architecture(name: str, options: Mapping[str, int]) -> Architecture:
    """Return a network of torchvision by the name that ``torchvision.models.get_model`` takes.

    Besides ``num_classes`` there are the options, 0 or 1, of the networks whose published weights need them:
    ``aux_logits`` and ``transform_input`` (googlenet, inception_v3), ``aux_loss`` (segmentation).

    Raises
    ------
    UsageError
        If there is no such name, or it has no such option.
    """
    models = require_extra("torchvision.models", extra="vision")
    if name not in models.list_models():
        raise unknown_name("torchvision", name, models.list_models())
    builder = models.get_model_builder(name)
    _check_options(name, options, _options(name, builder))
    return Architecture(
        name=f"torchvision:{name}",
        build=partial(models.get_model, name, **_without_weights(name, builder), **options),
        preprocessing=_preprocessing(models.get_model_weights(name)),
        frames=CLIP_FRAMES if builder.__module__.startswith("torchvision.models.video") else None,
    )


def _options(name: str, builder: Callable[..., object]) -> set[str]:
    options = {"num_classes"}
    if name in _WITH_AUXILIARY_HEADS:
        options |= {"aux_logits", "transform_input"}
    if "aux_loss" in inspect.signature(builder).parameters:
        options.add("aux_loss")
    return options


def _check_options(name: str, options: Mapping[str, int], known: set[str]) -> None:
    for option, value in options.items():
        if option not in known:
            raise UsageError(
                f"'torchvision:{name}' has no option {option!r}; it has {', '.join(sorted(known))}"
            )
        if option != "num_classes" and value > 1:
            raise UsageError(f"option {option!r} of 'torchvision:{name}' must be 0 or 1, not {value}")


def _without_weights(name: str, builder: Callable[..., object]) -> dict[str, object]:
    """Return the arguments for random weights, without a download and without a warning."""
    arguments: dict[str, object] = {"weights": None}
    if "weights_backbone" in inspect.signature(builder).parameters:
        # Networks for segmentation and detection fetch the weights of their backbone unless told not to.
        arguments["weights_backbone"] = None
    if name in _WITH_AUXILIARY_HEADS:
        # These two warn unless told how to begin; True is what they do by default.
        arguments["init_weights"] = True
    return arguments


def _preprocessing(weights: Any) -> Preprocessing:
    """Return what the published weights were evaluated with, or ImageNet's usual where that says nothing."""
    transforms: Any = weights.DEFAULT.transforms() if len(weights) else None
    crop, resize = getattr(transforms, "crop_size", None), getattr(transforms, "resize_size", None)
    if not crop or not resize:
        return IMAGENET
    height, width = crop * 2 if len(crop) == 1 else crop
    return Preprocessing(
        size=(height, width),
        resize=max(min(resize), height, width),
        mean=tuple(transforms.mean),
        std=tuple(transforms.std),
        interpolation=transforms.interpolation.value,
    )
