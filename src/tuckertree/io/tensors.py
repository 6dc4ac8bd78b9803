"""A model's tensors in a safetensors file: named, checked, shared ones once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from tuckertree._base.errors import TuckertreeError


def save_tensors(model: nn.Module, path: Path) -> None:
    """Write a model's own parameters and buffers; one that has several names is written under the first.

    They are the modules' own, whatever hooks make of the state dict.

    Raises
    ------
    TuckertreeError
        If the model's state has something that is no tensor.
    OSError
        If the file cannot be written.
    """
    state = _state(model)
    tensors: dict[str, Tensor] = {}
    storages: set[int] = set()
    for name, *_ in _groups(state):
        tensor = state[name].detach().cpu().contiguous()
        storage = tensor.untyped_storage().data_ptr()
        tensors[name] = tensor.clone() if storage in storages else tensor  # safetensors refuses what overlaps
        storages.add(storage)
    try:
        path.touch()
        mode = path.stat().st_mode  # safetensors makes files that nobody else may read
        save_file(tensors, path, metadata={"format": "pt"})
        path.chmod(mode)
    except SafetensorError as error:
        raise OSError(str(error).rpartition(": ")[2]) from error  # "... I/O error: No space left on device"


def load_tensors(model: nn.Module, path: Path) -> None:
    """Read tensors into a model's own parameters and buffers, which take the file's types.

    Tensors of the file's type are filled where they are, so that what else refers to their memory sees it.

    Names and shapes are all checked before the first tensor is read; on an error the model is unchanged.

    Raises
    ------
    TuckertreeError
        If the file is missing, truncated or corrupt, or its names or shapes are not the model's, or the model's
        state has something that is no tensor.
    """
    state = _state(model)
    groups = _groups(state)
    try:
        with safe_open(path, framework="pt") as file:
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
            stored = _match(groups, state, shapes, path)
            tensors = {name: file.get_tensor(name) for name in stored}
    except (SafetensorError, OSError, ValueError) as error:
        raise TuckertreeError(f"{path} is not a whole safetensors file: {error}") from error
    for name, tensor in tensors.items():
        target = state[name]
        if tensor.dtype.is_floating_point != target.dtype.is_floating_point:
            raise TuckertreeError(f"{path}: {name} is {tensor.dtype}, the model needs {target.dtype}")
    with torch.no_grad():
        for name, tensor in tensors.items():
            # Copies: the file is mapped, and its tensors lie at odd addresses, where kernels may round differently.
            if _can_be_filled(state[name], tensor):
                state[name].copy_(tensor)
            else:
                state[name].data = tensor.to(state[name].device, copy=True)


def _can_be_filled(target: Tensor, tensor: Tensor) -> bool:
    """Not where types differ, there is no memory yet, or several elements have one place in it."""
    overlaps = any(step == 0 and size > 1 for step, size in zip(target.stride(), target.shape, strict=True))
    return target.dtype == tensor.dtype and not target.is_meta and not overlaps


def _state(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and persistent buffers of all modules, by each of their names."""
    state: dict[str, Tensor] = {}
    for place, module in model.named_modules(remove_duplicate=False):
        persistent = {k: b for k, b in module._buffers.items() if k not in module._non_persistent_buffers_set}
        prefix = f"{place}." if place else ""
        own = {**module._parameters, **persistent}
        state.update({f"{prefix}{name}": tensor for name, tensor in own.items() if tensor is not None})
    _check_nothing_more(model, state)
    return state


def _check_nothing_more(model: nn.Module, own: Mapping[str, Tensor]) -> None:
    """Refuse a model that keeps more in its state dict than its modules' own tensors.

    Raises
    ------
    TuckertreeError
        Naming it.
    """
    known = {id(tensor) for tensor in own.values()}
    state: dict[str, object] = model.state_dict(keep_vars=True)
    for name, value in state.items():
        if not isinstance(value, Tensor) or type(value).__torch_dispatch__ is not Tensor.__torch_dispatch__:
            raise TuckertreeError(
                f"{name} in the model's state is a {type(value).__name__}; only tensors can be kept, "
                "so leave it out of the state"
            )
        if name not in own and id(value) not in known:
            raise TuckertreeError(
                f"{name} in the model's state is no parameter or buffer of its modules; only those can be kept, "
                "so leave it out of the state"
            )


def _groups(state: Mapping[str, Tensor]) -> list[list[str]]:
    """Names of a state dict, those of one and the same tensor together."""
    groups: dict[int, list[str]] = {}
    for name, tensor in state.items():
        groups.setdefault(id(tensor), []).append(name)
    return list(groups.values())


def _match(
    groups: Sequence[Sequence[str]],
    state: Mapping[str, Tensor],
    shapes: Mapping[str, tuple[int, ...]],
    path: Path,
) -> list[str]:
    stored = [next((name for name in names if name in shapes), None) for names in groups]
    missing = [names[0] for names, found in zip(groups, stored, strict=True) if found is None]
    known = {name for names in groups for name in names}
    surplus = [name for name in shapes if name not in known]
    wrong = [
        f"{name} {list(shapes[name])} instead of {list(state[name].shape)}"
        for name in stored
        if name is not None and shapes[name] != tuple(state[name].shape)
    ]
    for complaint, names in (
        ("lacks", missing),
        ("has unknown", surplus),
        ("has the wrong shape for", wrong),
    ):
        if names:
            shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
            raise TuckertreeError(f"{path} {complaint} {shown}")
    return [name for name in stored if name is not None]
