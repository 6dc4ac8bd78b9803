"""What an ONNX node asks for, and tables of functions that do it in torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tuckertree._base.extras import require_extra

Result = Tensor | tuple[Tensor, ...]
"""A tuple if several outputs are wanted."""
Function = Callable[..., Result]
"""One positional argument for each input, None for an omitted one."""


@dataclass(frozen=True)
class Operation:
    """A node apart from its inputs.

    Attributes
    ----------
    kind
        Its ``op_type``, of the standard domain.
    attributes
        As ``onnx.helper.get_attribute_value`` gives them.
    opset
        Version of the standard domain.
    outputs
        How many outputs are wanted, from the first on; all of them for a Split, whose parts go by their number.
    """

    kind: str
    attributes: Mapping[str, Any]
    opset: int
    outputs: int = 1

    def get(self, name: str, default: Any = None) -> Any:
        """Value of an attribute."""
        return self.attributes.get(name, default)

    def text(self, name: str, default: str) -> str:
        """Value of an attribute that is text."""
        value = self.attributes.get(name)
        return default if value is None else value.decode()


Maker = Callable[[Operation], Function | None]


class Table(dict[str, Maker]):
    """For each type of operator what makes its function, or gives None where torch cannot do the variant."""

    def add(self, *kinds: str) -> Callable[[Maker], Maker]:
        """Decorate what makes the functions of these types."""

        def register(maker: Maker) -> Maker:
            self.update(dict.fromkeys(kinds, maker))
            return maker

        return register

    def plain(self, functions: Mapping[str, Function]) -> None:
        """Add types that have no attributes and mean the same in all opsets."""

        def maker_of(function: Function) -> Maker:
            return lambda _: function

        self.update({kind: maker_of(function) for kind, function in functions.items()})


_WIDE = {10: torch.float32, 16: torch.float32}  # FLOAT16 and BFLOAT16 are computed in float32
_DTYPES = {
    1: torch.float32,
    2: torch.uint8,
    3: torch.int8,
    5: torch.int16,
    6: torch.int32,
    7: torch.int64,
    9: torch.bool,
    11: torch.float64,
    **_WIDE,
}


def dtype_of(data_type: int) -> torch.dtype | None:
    """The dtype in which values of a type of ``TensorProto`` are computed; None if torch lacks it."""
    return _DTYPES.get(data_type)


def tensor_of(proto: Any) -> Tensor | None:
    """A ``TensorProto`` as a tensor; None if its type is one torch lacks or its data are in another file."""
    dtype = dtype_of(proto.data_type)
    if dtype is None or proto.external_data:
        return None
    array = require_extra("onnx.numpy_helper", extra="onnx").to_array(proto)
    if proto.data_type in _WIDE:
        array = array.astype("float32")
    return torch.from_numpy(array.copy()).to(dtype)


def integers(tensor: Tensor | None) -> list[int]:
    """The values of an integer tensor; none if it is omitted."""
    return [] if tensor is None else tensor.flatten().tolist()


def along(tensor: Tensor, axis: int, rank: int) -> Tensor:
    """A vector as a tensor of ``rank`` axes whose ``axis`` it lies along."""
    return tensor.reshape([-1 if each == axis % rank else 1 for each in range(rank)])
