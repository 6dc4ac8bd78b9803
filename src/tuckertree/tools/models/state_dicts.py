"""State dicts in weight files: those of safetensors, and those that torch.save kept, maybe among other things."""

from __future__ import annotations

import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from tuckertree._base.errors import TuckertreeError, first_line
from tuckertree.io.recognition import CHECKPOINT, EXPORTED, SAFETENSORS, TORCHSCRIPT, kind_of

StateDict = Mapping[str, Tensor]
PICKLES = frozenset({".bin", ".ckpt", ".pickle", ".pkl", ".pt", ".pth", ".tar"})
# Where a state dict stands in a checkpoint, in most people's; others are taken if there is but one.
_USUAL = ("state_dict", "model_state_dict", "model")
_GLOBAL = re.compile(r"GLOBAL (\S+)")


def read_state_dict(path: Path, wanted: StateDict) -> StateDict:
    """Read the state dict that a network needs.

    Parameters
    ----------
    path
        A safetensors file, or one of ``torch.save`` that holds a state dict, or a mapping with state dicts in it. Names
        may all begin with something more than the network's, as those of a wrapper do.
    wanted
        The network's own.

    Returns
    -------
    Mapping
        With the network's names where there is one that fits, else the one that comes nearest.

    Raises
    ------
    TuckertreeError
        If the file is missing, damaged, or holds anything that would have to be unpickled; if several state dicts in it
        fit and are not equal.
    """
    if not path.exists():
        raise TuckertreeError(
            f"{path}: no such file; give a .safetensors file, or a .pt file of a state dict"
        )
    kind = kind_of(path)
    if kind == TORCHSCRIPT:
        raise TuckertreeError(
            f"{path}: is a TorchScript program; give weights: torch.save(model.state_dict(), ...)"
        )
    if kind == EXPORTED:
        raise TuckertreeError(
            f"{path}: is an exported program; give weights: torch.save(model.state_dict(), ...)"
        )
    if kind == CHECKPOINT or (kind != SAFETENSORS and path.suffix.lower() in PICKLES):
        found = _state_dicts(path, _unpickled(path))
    else:
        found = {"": _safetensors(path)}
    named = {where: _named_as(tensors, wanted) for where, tensors in found.items()}
    fitting = {where: tensors for where, tensors in named.items() if tensors.keys() == wanted.keys()}
    usual = {where: fitting[where] for where in ("", *_USUAL) if where in fitting}
    first, *others = (
        usual or fitting or {"": max(named.values(), key=lambda one: len(one.keys() & wanted))}
    ).items()
    if any(not _equal(first[1], tensors) for _, tensors in others):
        names = ", ".join(repr(where) for where in (usual or fitting))
        raise TuckertreeError(
            f"{path}: holds several state dicts that fit, {names}; save the one you mean in a file of its own"
        )
    return first[1]


def _safetensors(path: Path) -> StateDict:
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise TuckertreeError(
            f"{path}: not a whole safetensors file ({error}); fetch or convert it again"
        ) from error


def _unpickled(path: Path) -> object:
    """What ``torch.save`` kept, if it is tensors in plain containers."""
    _refuse_compressed(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file raises whatever its bytes happen to mean
        asked = _GLOBAL.search(str(error))
        if asked:
            raise TuckertreeError(
                f"{path}: holds more than tensors, {asked[1]}, and unpickling that could run any code; save the "
                "weights alone: torch.save(model.state_dict(), 'weights.pt')"
            ) from error
        reason = first_line(error).partition(". ")[0]
        raise TuckertreeError(
            f"{path}: not a whole file of torch.save ({reason}); save it again: "
            "torch.save(model.state_dict(), 'weights.pt')"
        ) from error


def _refuse_compressed(path: Path) -> None:
    """Refuse an archive that unpacks to more than it is; torch.save compresses nothing."""
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
    except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError):
        return  # an older file, or a damaged one
    if unpacked > path.stat().st_size:
        raise TuckertreeError(f"{path}: is compressed, which torch.save does not do; save it again")


def _state_dicts(path: Path, content: object) -> dict[str, StateDict]:
    """The state dicts of a checkpoint by their keys, that of the whole under ``""``."""
    nested = content.items() if isinstance(content, Mapping) else ()
    places = {"": content, **{key: value for key, value in nested if isinstance(key, str)}}
    found: dict[str, StateDict] = {
        where: tensors for where, value in places.items() if (tensors := _tensors(value))
    }
    if not found:
        raise TuckertreeError(
            f"{path}: holds a {type(content).__name__} without a state dict; save the weights: "
            "torch.save(model.state_dict(), 'weights.pt')"
        )
    return found


def _tensors(value: object) -> dict[str, Tensor]:
    if not isinstance(value, Mapping):
        return {}
    return {
        name: tensor.detach()
        for name, tensor in value.items()
        if isinstance(name, str) and type(tensor) in (Tensor, nn.Parameter)
    }


def _named_as(tensors: StateDict, wanted: StateDict) -> StateDict:
    """A state dict without what all its names begin with, if the network's names are behind it."""
    shortest = min(wanted, key=len, default="")
    prefixes = {name[: -len(shortest)] for name in tensors if shortest and name.endswith(f".{shortest}")}
    for prefix in sorted(prefixes, key=len, reverse=True):
        if all(name.startswith(prefix) for name in tensors):
            short = {name[len(prefix) :]: tensor for name, tensor in tensors.items()}
            if len(short.keys() & wanted) > len(tensors.keys() & wanted):
                return short
    return tensors


def _equal(one: StateDict, other: StateDict) -> bool:
    return all(
        tensor.shape == other[name].shape
        and tensor.dtype == other[name].dtype
        and tensor.layout == other[name].layout
        and torch.equal(tensor, other[name])
        for name, tensor in one.items()
    )
