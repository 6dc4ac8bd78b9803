"""The networks of timm, with random weights; nothing is downloaded."""

import math
from collections.abc import Mapping
from functools import partial
from typing import Any

from tuckertree._base.errors import UsageError
from tuckertree._base.extras import require_extra
from tuckertree.tools.data.preprocessing import Preprocessing
from tuckertree.tools.models.architecture import Architecture, unknown_name


def timm_architecture(name: str, options: Mapping[str, int]) -> Architecture:
    """Return a network of timm by its name, ``resnet50``, maybe with a tag, ``resnet50.a1_in1k``.

    The tag names published weights; here it only decides the preprocessing and the number of classes.

    Raises
    ------
    UsageError
        If there is no such name or tag, or an option other than ``num_classes``.
    """
    timm = require_extra("timm", extra="vision")
    architecture, _, tag = name.partition(".")
    # timm would also take a name such as hf-hub:... or local-dir:..., and fetch that; they are not listed.
    if architecture not in timm.list_models():
        raise unknown_name("timm", architecture, timm.list_models())
    if tag and name not in timm.list_pretrained():
        raise unknown_name("timm", name, timm.list_pretrained(f"{architecture}.*"))
    for option in options:
        if option != "num_classes":
            raise UsageError(f"'timm:{name}' has no option {option!r}; it has num_classes")
    return Architecture(
        name=f"timm:{name}",
        build=partial(timm.create_model, name, pretrained=False, **options),
        preprocessing=_preprocessing(name),
    )


def _preprocessing(name: str) -> Preprocessing:
    """Return what the weights of this tag were evaluated with.

    Where timm squashes an image to a square or adds a border, the centre is cropped here.
    """
    timm = require_extra("timm", extra="vision")
    data = require_extra("timm.data", extra="vision")
    published = timm.get_pretrained_cfg(name)
    config: dict[str, Any] = data.resolve_data_config(pretrained_cfg=published.to_dict() if published else {})
    _, height, width = config["input_size"]
    longest = max(height, width)
    return Preprocessing(
        size=(height, width),
        resize=max(longest, math.floor(longest / config["crop_pct"])),
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
        interpolation=config["interpolation"],
    )
