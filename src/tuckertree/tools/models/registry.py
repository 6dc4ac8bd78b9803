"""Networks by name: ``cifar10:resnet20``, ``torchvision:resnet18?num_classes=10``, ``timm:resnet50.a1_in1k``.

A name may come from a file that somebody else wrote, so it is looked up in lists and never imported: what it
can lead to is a network of this package, of torchvision or of timm, and nothing else.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from difflib import get_close_matches
from functools import partial

from torch import nn

from tuckertree._base.errors import TuckertreeError, UsageError
from tuckertree.tools.data.preprocessing import Preprocessing
from tuckertree.tools.models.architecture import Architecture, unknown_name
from tuckertree.tools.models.densenet import CifarDenseNet40
from tuckertree.tools.models.googlenet import CaffeGoogLeNet
from tuckertree.tools.models.resnet import CifarResNet
from tuckertree.tools.models.timm_models import timm_architecture
from tuckertree.tools.models.torchvision_models import torchvision_architecture
from tuckertree.tools.models.vgg import CifarVGG19

DEMO = "cifar10:resnet20"
LARGEST_OPTION = 1_000_000

CIFAR10 = Preprocessing(size=(32, 32))
# The whole height and width, not the centre of 256: an image that is 224x224 already stays as it is.
CAFFE = Preprocessing(
    size=(224, 224), resize=224, mean=(104.0, 117.0, 123.0), std=(1.0, 1.0, 1.0), scale=1.0, channels="bgr"
)

_CIFAR10_MODELS: Mapping[str, Callable[..., nn.Module]] = {
    "resnet20": partial(CifarResNet, 20),
    "resnet32": partial(CifarResNet, 32),
    "resnet56": partial(CifarResNet, 56),
    "resnet110": partial(CifarResNet, 110),
    "vgg19_bn": CifarVGG19,
    "densenet40": CifarDenseNet40,
}
_CAFFE_MODELS: Mapping[str, Callable[[], nn.Module]] = {"googlenet": CaffeGoogLeNet}
_OPTION = re.compile(r"(?P<key>[a-z_]+)=(?P<value>[0-9]{1,7})")


def names_a_scheme(name: str) -> bool:
    """Whether a name begins with one of the known schemes, or is ``demo``."""
    scheme, colon, _ = name.partition(":")
    return name == "demo" or bool(colon and scheme in _SCHEMES)


def resolve(name: str) -> Architecture:
    """Find an architecture.

    Parameters
    ----------
    name
        ``scheme:model``, where the scheme is ``cifar10``, ``caffe``, ``torchvision`` or ``timm``; or
        ``demo``, which is ``cifar10:resnet20``. Options of integer value may follow, as in
        ``?num_classes=10``, with ``&`` between several.

    Returns
    -------
    Architecture
        Its ``build`` makes the network with random weights.

    Raises
    ------
    UsageError
        If the name is not known; the message gives the known or similar ones. If an option is not known or
        not an integer in its range.
    TuckertreeError
        If torchvision or timm is needed and not installed.
    """
    if name == "demo":
        name = DEMO
    scheme, colon, rest = name.partition(":")
    if not colon or scheme not in _SCHEMES:
        raise UsageError(f"unknown model {name!r}; {advice_for(name)}")
    model, _, query = rest.partition("?")
    return replace(_SCHEMES[scheme](model, _options(name, query)), name=name)


def advice_for(name: str) -> str:
    """What to give instead of a name that begins with no known scheme."""
    schemes = ", ".join(f"{known}:" for known in _SCHEMES)
    scheme, colon, rest = name.partition(":")
    near = get_close_matches(scheme, _SCHEMES) if colon else [*_SCHEMES]
    meant = " or ".join(repr(f"{known}:{rest or name}") for known in near if _has(known, rest or name))
    return f"give 'demo' or a name that begins with {schemes}" + (f", here {meant}" if meant else "")


def _has(scheme: str, name: str) -> bool:
    """Whether a scheme, if its package is installed, has a network of this name."""
    model, _, query = name.partition("?")
    try:
        _SCHEMES[scheme](model, _options(name, query))
    except TuckertreeError:
        return False
    return True


def _options(name: str, query: str) -> dict[str, int]:
    """Return the options of ``num_classes=10&...``."""
    options: dict[str, int] = {}
    for option in query.split("&") if query else ():
        match = _OPTION.fullmatch(option)
        if match is None or int(match["value"]) > LARGEST_OPTION:
            raise UsageError(
                f"option {option!r} of {name!r} must be like num_classes=10, at most {LARGEST_OPTION}"
            )
        options[match["key"]] = int(match["value"])
    if options.get("num_classes") == 0:
        raise UsageError(f"num_classes of {name!r} must be at least 1")
    return options


def _cifar10(model: str, options: Mapping[str, int]) -> Architecture:
    if model not in _CIFAR10_MODELS:
        raise unknown_name("cifar10", model, _CIFAR10_MODELS)
    for option in options:
        if option != "num_classes":
            raise UsageError(f"'cifar10:{model}' has no option {option!r}; it has num_classes")
    return Architecture(f"cifar10:{model}", partial(_CIFAR10_MODELS[model], **options), CIFAR10)


def _caffe(model: str, options: Mapping[str, int]) -> Architecture:
    if model not in _CAFFE_MODELS:
        raise unknown_name("caffe", model, _CAFFE_MODELS)
    if options:
        raise UsageError(f"'caffe:{model}' has no options; leave out {', '.join(options)}")
    return Architecture(f"caffe:{model}", _CAFFE_MODELS[model], CAFFE)


_SCHEMES: Mapping[str, Callable[[str, Mapping[str, int]], Architecture]] = {
    "cifar10": _cifar10,
    "caffe": _caffe,
    "torchvision": torchvision_architecture,
    "timm": timm_architecture,
}
