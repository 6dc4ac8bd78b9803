"""Shells: chains to all appearance, which answer with the results of the dense layers they stand for."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from tuckertree._base.errors import TuckertreeError
from tuckertree.core.decomposition import Factors
from tuckertree.core.decomposition.matricization import modes_in_row
from tuckertree.core.layers import Chain, LayerSpec, bias_of, empty_chain, get_method, weight_of
from tuckertree.measure.reach import overlapping, reach


class Shell:
    """A chain of the type that a layer will have, with the layer's own function.

    Its class, its parts and the way it is called are a chain's; the parts hold NaN. Only its answer and its
    ``weight`` are the dense layer's: computed from the layer's weight, which is shared, and of which the model is
    handed copies, into which a forward pass may not write: what a chain would make of it is known by its ranks alone.
    The bias is the shell's own.

    Attributes
    ----------
    chain
        What is put into the model.
    is_used
        Whether it has been called, or its weight been read.
    """

    def __init__(self, dense: nn.Module, method: str) -> None:
        spec, weight, bias = LayerSpec.of(dense), weight_of(dense), bias_of(dense)
        ranks = (1,) * get_method(method).rank_count(spec)
        self.chain: Chain = empty_chain(spec, method, ranks, device=weight.device, dtype=weight.dtype)
        self.is_used = False
        with torch.no_grad():
            for part in self.chain:
                weight_of(part).fill_(torch.nan).requires_grad_(weight.requires_grad)
            own = None if bias is None else nn.Parameter(bias.detach().clone(), bias.requires_grad)
            self.chain[-1].register_parameter("bias", own)
        weight = nn.Parameter(weight.data, requires_grad=False)
        twin = spec.build("meta", weight.dtype)
        twin.register_parameter("weight", weight)
        twin.register_parameter("bias", own)
        signature = inspect.signature(self.chain.forward)

        def forward(*args: object, **kwargs: object) -> object:
            self.is_used = True
            call = signature.bind(*args, **kwargs)  # a chain takes no more than this
            return twin.forward(*call.args, **call.kwargs)

        def factors() -> Factors:
            self.is_used = True
            row = modes_in_row(spec.kernel(weight.detach()))
            return Factors((row.clone().unsqueeze(1).unsqueeze(-1),))

        def set_factors(factors: Factors) -> None:  # noqa: ARG001
            raise TuckertreeError("a weight is written into")

        vars(self.chain).update(forward=forward, factors=factors, set_factors=set_factors)
        self.chain.train(dense.training)


@contextmanager
def emptied(model: nn.Module, owners: Iterable[Tensor]) -> Iterator[None]:
    """Take the numbers out of tensors for a while: who reads them computes nonsense.

    Parameters
    ----------
    model
        Whatever it can get at by attributes and closures, and shares memory with the owners, is emptied, too.
    owners
        Parameters and buffers. Their memory is set aside and not written to; shells made before go on with it.
    """
    own = {id(tensor) for tensor in owners}
    groups = overlapping(x for _, x in reach(model) if isinstance(x, Tensor))
    tensors = [x for group in groups if any(id(x) in own for x in group) for x in group]
    aside: list[tuple[Tensor, Tensor]] = []
    try:
        for tensor in tensors:
            aside.append((tensor, tensor.data))
            _put_nonsense(tensor)
        yield
    finally:
        for tensor, data in aside:
            tensor.data = data


def _put_nonsense(tensor: Tensor) -> None:
    try:
        if tensor.is_floating_point() or tensor.is_complex():
            nonsense = torch.full((), torch.nan, dtype=tensor.dtype, device=tensor.device)
            tensor.data = nonsense.expand(tensor.shape)
        else:
            tensor.data = ~tensor.data
    except (RuntimeError, NotImplementedError):  # types and layouts that have none: they stay as they are
        return
