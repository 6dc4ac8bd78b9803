"""Recurrent layers, as torch's kernels compute them."""

from __future__ import annotations

import torch
from torch import Tensor

from tuckertree.network.onnx.operators.operation import Function, Operation, Table

TABLE = Table()
_ORDERS = {"LSTM": (0, 2, 3, 1), "GRU": (1, 0, 2), "RNN": (0,)}
"""Places of torch's gates (LSTM: input, forget, cell, output; GRU: reset, update, new) among those of ONNX."""
_USUAL = {"LSTM": (b"Sigmoid", b"Tanh", b"Tanh"), "GRU": (b"Sigmoid", b"Tanh"), "RNN": (b"Tanh",)}


@TABLE.add(*_ORDERS)
def _recurrent(operation: Operation) -> Function | None:
    """One layer in one or both directions; Y is ``[T, D, N, H]``, Y_h and Y_c ``[D, N, H]``."""
    kind, direction = operation.kind, operation.text("direction", "forward")
    directions = 2 if direction == "bidirectional" else 1
    given = operation.get("activations")
    usual = not given or tuple(given) == _USUAL[kind] * directions
    special = ("activation_alpha", "activation_beta", "clip", "input_forget", "layout")
    if not usual or any(operation.get(name) for name in special):
        return None
    if kind == "GRU" and not operation.get("linear_before_reset", 0):
        return None  # torch's applies the recurrent weight first

    def run(
        x: Tensor,
        w: Tensor,
        r: Tensor,
        b: Tensor | None = None,
        lengths: Tensor | None = None,
        h: Tensor | None = None,
        c: Tensor | None = None,
        peepholes: Tensor | None = None,
    ) -> Tensor | tuple[Tensor, ...]:
        if peepholes is not None or (lengths is not None and not bool((lengths == len(x)).all())):
            raise NotImplementedError
        size, batch = r.shape[-1], x.shape[1]
        b = w.new_zeros(directions, 2 * w.shape[1]) if b is None else b
        flat: list[Tensor] = []
        for d in range(directions):
            flat += [_ordered(part, kind) for part in (w[d], r[d], *b[d].chunk(2))]
        start = [x.new_zeros(directions, batch, size) if s is None else s for s in (h, c)]
        x = x.flip(0) if direction == "reverse" else x
        options = (True, 1, 0.0, False, directions == 2, False)
        if kind == "LSTM":
            y, *last = torch.lstm(x, start, flat, *options)
        else:
            y, *last = (torch.gru if kind == "GRU" else torch.rnn_tanh)(x, start[0], flat, *options)
        y = y.unflatten(2, (directions, size)).transpose(1, 2)
        y = y.flip(0) if direction == "reverse" else y
        return (y, *last)[: operation.outputs] if operation.outputs > 1 else y

    return run


def _ordered(weight: Tensor, kind: str) -> Tensor:
    """A weight or bias with its gates in torch's order."""
    gates = weight.chunk(len(_ORDERS[kind]))
    return torch.cat([gates[place] for place in _ORDERS[kind]])
