"""Weights from a safetensors file into a network, all of them or none."""

from collections.abc import Iterable
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from tuckertree.errors import TuckertreeError

PICKLES = frozenset({".bin", ".ckpt", ".pickle", ".pkl", ".pt", ".pth", ".tar"})


def load_weights(model: nn.Module, path: Path) -> None:
    """Load all parameters and buffers of a network from a safetensors file.

    The file must hold exactly the tensors of ``model.state_dict()``. Numbers are converted to the types of
    the network, so that weights stored in float16 make a float32 network. Everything is checked before
    anything is changed.

    Parameters
    ----------
    model
        The network; it keeps its types and its device.
    path
        A file in the safetensors format, https://huggingface.co/docs/safetensors.

    Raises
    ------
    TuckertreeError
        If the file is missing, damaged or of a format that would have to be unpickled; if tensors are
        missing, unknown, or of another shape or kind; if weights are not finite. The network is then as
        it was.
    """
    stored = _read(path)
    wanted = model.state_dict()
    _refuse(path, "tensors that the network needs are missing", wanted.keys() - stored.keys())
    _refuse(path, "tensors that the network does not have", stored.keys() - wanted.keys())
    _refuse(path, "tensors of the wrong shape", _wrong_shapes(stored, wanted))
    _refuse(path, "tensors of the wrong kind", _wrong_kinds(stored, wanted))
    converted = {name: tensor.to(wanted[name].dtype) for name, tensor in stored.items()}
    # After the conversion: a number may be finite in the file and too large for the type of the network.
    _refuse(path, "tensors with numbers that are not finite", _not_finite(converted), "use a sound file")
    model.load_state_dict(converted)


def _read(path: Path) -> dict[str, Tensor]:
    if path.suffix.lower() in PICKLES:
        raise TuckertreeError(
            f"{path}: reading a {path.suffix} file would need unpickling, which can run any code; convert it "
            "with safetensors.torch.save_file(model.state_dict(), 'weights.safetensors')"
        )
    if not path.is_file():
        raise TuckertreeError(f"{path}: no such file; give a safetensors file")
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise TuckertreeError(
            f"{path}: not a whole safetensors file ({error}); fetch or convert it again"
        ) from error


def _wrong_shapes(stored: dict[str, Tensor], wanted: dict[str, Tensor]) -> list[str]:
    return [
        f"{name} {list(tensor.shape)} instead of {list(wanted[name].shape)}"
        for name, tensor in stored.items()
        if tensor.shape != wanted[name].shape
    ]


def _wrong_kinds(stored: dict[str, Tensor], wanted: dict[str, Tensor]) -> list[str]:
    # float16 to float32 loses nothing; integers in the place of floats are quantised and need their scales.
    return [
        f"{name} {tensor.dtype} instead of {wanted[name].dtype}"
        for name, tensor in stored.items()
        if tensor.is_floating_point() != wanted[name].is_floating_point()
        or tensor.is_complex() != wanted[name].is_complex()
    ]


def _not_finite(tensors: dict[str, Tensor]) -> list[str]:
    return [name for name, tensor in tensors.items() if not torch.isfinite(tensor).all()]


def _refuse(
    path: Path, fault: str, names: Iterable[str], advice: str = "use the weights of this architecture"
) -> None:
    """Raise an error that names the first three of the faulty tensors, if there are any."""
    listed = sorted(names)
    if listed:
        more = ", ..." if len(listed) > 3 else ""
        raise TuckertreeError(f"{path}: {len(listed)} {fault}: {', '.join(listed[:3])}{more}; {advice}")
