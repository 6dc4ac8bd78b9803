"""Weights from a file into a network, all of them or none."""

from collections.abc import Iterable
from pathlib import Path

import torch
from torch import nn

from tuckertree._base.errors import TuckertreeError
from tuckertree.tools.models.state_dicts import StateDict, read_state_dict


def load_weights(model: nn.Module, path: Path) -> None:
    """Load all parameters and buffers of a network from a file.

    The file must hold exactly the tensors of ``model.state_dict()``, by its names or with the prefix of a wrapper. Numbers are converted to the types of
    the network, so that weights stored in float16 make a float32 network. Everything is checked before
    anything is changed.

    Parameters
    ----------
    model
        The network; it keeps its types and its device.
    path
        A file in the safetensors format, https://huggingface.co/docs/safetensors, or of ``torch.save``: a state dict,
        or a checkpoint with one in it. Nothing but tensors is unpickled.

    Raises
    ------
    TuckertreeError
        If the file is missing, damaged or holds anything but tensors in plain containers; if tensors are missing,
        unknown, or of another shape or kind; if weights are not finite. The network is then as it was.
    """
    wanted = model.state_dict()
    stored = read_state_dict(path, wanted)
    _refuse(path, "tensors that the network needs are missing", wanted.keys() - stored.keys())
    _refuse(path, "tensors that the network does not have", stored.keys() - wanted.keys())
    _refuse(path, "tensors of the wrong shape", _wrong_shapes(stored, wanted))
    _refuse(path, "tensors of the wrong kind", _wrong_kinds(stored, wanted))
    converted = {name: tensor.to(wanted[name].dtype) for name, tensor in stored.items()}
    # After the conversion: a number may be finite in the file and too large for the type of the network.
    _refuse(path, "tensors with numbers that are not finite", _not_finite(converted), "use a sound file")
    model.load_state_dict(converted)


def _wrong_shapes(stored: StateDict, wanted: StateDict) -> list[str]:
    return [
        f"{name} {list(tensor.shape)} instead of {list(wanted[name].shape)}"
        for name, tensor in stored.items()
        if tensor.shape != wanted[name].shape
    ]


def _wrong_kinds(stored: StateDict, wanted: StateDict) -> list[str]:
    # float16 to float32 loses nothing; integers in the place of floats are quantized and need their scales.
    return [
        f"{name} {tensor.dtype} instead of {wanted[name].dtype}"
        for name, tensor in stored.items()
        if tensor.is_floating_point() != wanted[name].is_floating_point()
        or tensor.is_complex() != wanted[name].is_complex()
        or tensor.is_quantized
        or tensor.is_meta
        or tensor.layout != wanted[name].layout
    ]


def _not_finite(tensors: StateDict) -> list[str]:
    return [name for name, tensor in tensors.items() if not torch.isfinite(tensor).all()]


def _refuse(
    path: Path, fault: str, names: Iterable[str], advice: str = "use the weights of this architecture"
) -> None:
    """Raise an error that names the first three of the faulty tensors, if there are any."""
    listed = sorted(names)
    if listed:
        more = ", ..." if len(listed) > 3 else ""
        raise TuckertreeError(f"{path}: {len(listed)} {fault}: {', '.join(listed[:3])}{more}; {advice}")
