"""The control flow of a forward pass, as far as it decides which rows a layer sees.

Rows of a layer's input in two networks belong together where nothing in the values has moved them: no index, no
mask, no bound of a slice, and no branch of the code. A network may choose rows by its values (experts, regions of
interest, the best of many boxes), and then the same shape in both networks proves nothing. So each forward pass keeps a
digest of all that moves rows by number, of every value that the code reads, and of the layers it has called. Equal
digests at a layer mean that both forward passes have had the same control flow up to it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from threading import local
from typing import Any
from zlib import crc32

from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from tuckertree.measure.nested import leaves

_MOVING = (
    *(
        "gather",
        "index",
        "_unsafe_index",
        "index_select",
        "masked_select",
        "take",
        "repeat_interleave",
        "nms",
    ),
    *(
        "index_put",
        "_index_put_impl",
        "_unsafe_index_put",
        "index_add",
        "index_copy",
        "index_fill",
        "index_reduce",
    ),
    *("scatter", "scatter_add", "scatter_reduce", "masked_scatter", "put"),
)
"""Operations that move rows as their second and later arguments say, in place or not."""
_CUTTING = ("slice", "select", "narrow", "split", "split_with_sizes", "roll", "arange")
"""Operations whose numbers may have been read off values."""

_here = local()


class ControlFlow(TorchDispatchMode):
    """Follows the forward pass that runs within it, in its own thread.

    Attributes
    ----------
    digest
        Of the control flow so far.
    """

    def __init__(self) -> None:
        super().__init__()
        self.digest = 0
        self._inside = 0

    def __enter__(self) -> ControlFlow:
        _here.control_flow = self
        super().__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        _here.control_flow = None
        super().__exit__(*error)

    def enter(self, name: str) -> None:
        """Enter a layer; what happens in it is its own affair."""
        self.note(name)
        self._inside += 1

    def leave(self) -> None:
        """Leave the layer."""
        self._inside -= 1

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[object, ...] = (),
        kwargs: dict[str, object] | None = None,
    ) -> object:
        """Run an operation and note what it moves."""
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if not self._inside:
            name = func._schema.name.rpartition("::")[2].rstrip("_")
            if name == "_local_scalar_dense":
                self.note(result)
            elif name in _MOVING:
                first = 0 if name == "repeat_interleave" else 1
                self.note(name, *map(_content, leaves([args[first:], kwargs])))
            elif name in _CUTTING:
                self.note(name, *(x for x in leaves([args, kwargs]) if isinstance(x, int)))
        return result

    def note(self, *what: object) -> None:
        """Add to the digest."""
        self.digest = hash((self.digest, *what))


def _content(value: object) -> object:
    """What tells one index from another; floating-point values move nothing."""
    if not isinstance(value, Tensor):
        return value if isinstance(value, int | str) else None
    if value.is_floating_point() or value.is_complex():
        return None
    return (*value.shape, crc32(value.detach().cpu().numpy().tobytes()))


@contextmanager
def followed(model: nn.Module, names: Iterable[str]) -> Iterator[None]:
    """Let forward passes of a model within :class:`ControlFlow` tell when they enter and leave the layers of these names."""

    def entering(name: str) -> Any:
        def hook(*_: object) -> None:
            if (control_flow := getattr(_here, "control_flow", None)) is not None:
                control_flow.enter(name)

        return hook

    def leaving(*_: object) -> None:
        if (control_flow := getattr(_here, "control_flow", None)) is not None:
            control_flow.leave()

    layers = [(name, model.get_submodule(name)) for name in names]
    handles = [module.register_forward_pre_hook(entering(name)) for name, module in layers]
    handles += [module.register_forward_hook(leaving) for _, module in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def note(*what: object) -> None:
    """Add to the control flow of the forward pass that runs in this thread what its operations do not show."""
    if (control_flow := getattr(_here, "control_flow", None)) is not None:
        control_flow.note(*what)


def control_flow_here() -> int:
    """Digest of the control flow of the forward pass that runs in this thread; 0 if none is followed."""
    control_flow = getattr(_here, "control_flow", None)
    return 0 if control_flow is None else control_flow.digest
