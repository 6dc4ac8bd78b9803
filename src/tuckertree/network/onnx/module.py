"""An ONNX graph as a module of torch, with gradients: its layers are torch's own, under the names of their nodes."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tuckertree._base.errors import TuckertreeError, first_line
from tuckertree.network.onnx.fallback import note_choice
from tuckertree.network.onnx.files import OnnxFile
from tuckertree.network.onnx.graph import Graph
from tuckertree.network.onnx.inputs import Feed, element_type
from tuckertree.network.onnx.layers import OnnxLayer
from tuckertree.network.onnx.runtime import probing
from tuckertree.network.onnx.steps import NormConstants, Step, Steps, Value, as_computed

TOLERANCE = 1e-3
"""A node may differ by so much from ONNX Runtime's, relative to the norm of what it gives."""
_FLOOR = 1e-6


class OnnxModule(nn.Module):
    """The main graph of an ONNX file, run node by node.

    Convolutions and products with constant weights are torch's layers, under the layers' names; BatchNormalizations
    are torch's; other nodes are functions of torch, or, where there is none, models of one node in ONNX Runtime, which
    end the gradient. float16 is computed in float32. A value is freed after its last use.

    Parameters
    ----------
    file, graph
        The model.
    layers
        Its layers by name; those without a weight of their own are functions like other nodes.
    """

    def __init__(self, file: OnnxFile, graph: Graph, layers: Mapping[str, OnnxLayer]) -> None:
        super().__init__()
        made = Steps(file, graph, layers)
        self._modules.update(made.modules)  # names of nodes may be no names of attributes
        self._program = _Program(file, graph, made)

    @property
    def norms(self) -> Mapping[str, NormConstants]:
        """Constants of the norms by name."""
        return self._program.norms

    def get_submodule(self, target: str) -> nn.Module:
        """The module of a layer's or norm's name, or of a path."""
        for name, module in self._modules.items():
            if module is not None and target == name:
                return module
            if module is not None and target.startswith(f"{name}."):
                return module.get_submodule(target[len(name) + 1 :])
        return super().get_submodule(target)

    def forward(self, *args: Value, **feed: Value) -> dict[str, Value]:
        """Outputs by name, of inputs by position or by name.

        Raises
        ------
        TuckertreeError
            If a node does not run; the message names it.
        """
        program = self._program
        given = {**dict(zip(program.inputs, args, strict=False)), **feed}
        values: dict[str, Value] = {name: program.as_input(name, value) for name, value in given.items()}
        known = ChainMap(values, program.constants)
        for step in program.steps:
            values.update(self.run_step(step, known))
            for name in step.last:
                values.pop(name, None)
        return {name: known[name] for name in program.outputs}

    def run_step(self, step: Step, values: Mapping[str, Value]) -> dict[str, Value]:
        """What a step makes of values by name."""
        return _run(step, values, self._modules.get(step.module), self)

    def check(self, feed: Feed) -> None:
        """Compare each node with ONNX Runtime on the values that it has there.

        Raises
        ------
        TuckertreeError
            Naming the first node that gives something else, by more than ``TOLERANCE``.
        """
        program = self._program
        names = [name for step in program.steps for name in (*step.inputs, *step.outputs) if name]
        wanted = [n for n in dict.fromkeys(names) if n not in program.constants and n not in feed]
        found = probing(program.graph.proto, program.file.folder, wanted).run(feed)
        values = ChainMap({n: as_computed(value) for n, value in (feed | found).items()}, program.constants)
        for step in program.steps:
            if step.function is None:
                continue
            with torch.no_grad():
                ours = self.run_step(step, values)
            for name, value in ours.items():
                if trouble := _difference(value, values[name]):
                    raise TuckertreeError(
                        f"{program.file.path}: the node {step.name} gives other values in torch than in ONNX Runtime "
                        f"({trouble}), so the file cannot be calibrated; compress it without images"
                    )


class _Program:
    """Steps and constants, which copies of a module share: nothing in it changes."""

    def __init__(self, file: OnnxFile, graph: Graph, made: Steps) -> None:
        self.file, self.graph = file, graph
        self.inputs = {name: element_type(graph, name) for name in graph.inputs}
        self.outputs, self.norms = graph.outputs, made.norms
        self.steps = [step for step in made.steps if not self._is_fixed(step)]
        self._fixed = [step for step in made.steps if self._is_fixed(step)]

    def __deepcopy__(self, memo: dict[int, object]) -> _Program:
        return self

    def _is_fixed(self, step: Step) -> bool:
        return not step.module and all(name in self.graph.values for name in step.outputs if name)

    @cached_property
    def constants(self) -> dict[str, Value]:
        """Constants that steps or outputs need, computed where nodes stand before them."""
        final = {name for step in self.steps for name in step.inputs} | {*self.outputs}
        used, needed = set(final), list[Step]()
        for step in reversed(self._fixed):
            if used & {*step.outputs}:
                used |= {*step.inputs}
                needed.append(step)
        graph = self.graph.proto.graph
        written = {**self.graph.constants, **{tensor.name: tensor for tensor in graph.initializer}}
        values = {n: as_computed(self.file.array(tensor)) for n, tensor in written.items() if n in used}
        values |= {t.values.name: self._dense(t) for t in graph.sparse_initializer if t.values.name in used}
        for step in reversed(needed):
            with torch.no_grad():
                values.update(_run(step, values, None, self))
        return {name: value for name, value in values.items() if name in final}

    def _dense(self, sparse: Any) -> Value:
        values, indices = self.file.array(sparse.values), self.file.array(sparse.indices)
        dense = np.zeros(tuple(sparse.dims), values.dtype)
        flat = indices if indices.ndim == 1 else np.ravel_multi_index(tuple(indices.T), dense.shape)
        dense.reshape(-1)[flat] = values
        return as_computed(dense)

    def as_input(self, name: str, value: Value) -> Value:
        """An input in the type that it is computed in."""
        array = value if isinstance(value, Tensor) else torch.as_tensor(value)
        if array.is_floating_point() and self.inputs[name].kind == "f":
            return array.to(torch.float64 if self.inputs[name].itemsize == 8 else torch.float32)
        return array


def _run(
    step: Step, values: Mapping[str, Value], module: nn.Module | None, owner: object
) -> dict[str, Value]:
    inputs = [values[name] if name else None for name in step.inputs]
    results = _in_torch(step, inputs, module)
    if results is None:
        given = step.session.run(step.inputs, inputs)
        note_choice(step.session, owner, [*inputs, *given])
        results = tuple(map(as_computed, given))
    return {name: result for name, result in zip(step.outputs, results, strict=False) if name}


def _in_torch(step: Step, inputs: Sequence[Value], module: nn.Module | None) -> tuple[Value, ...] | None:
    """Outputs of a step, or None where torch cannot do it."""
    if step.function is None or not all(x is None or isinstance(x, Tensor) for x in inputs):
        return None
    try:
        found = step.function(*([] if module is None else [module]), *inputs)
    except NotImplementedError:
        return None
    except TuckertreeError:
        raise
    except Exception as error:
        raise TuckertreeError(f"the node {step.name} does not run: {first_line(error)}") from error
    return found if isinstance(found, tuple) else (found,)


def _difference(ours: Value, theirs: Value) -> str:
    """What is different in a value, or ''."""
    if not isinstance(ours, Tensor) or not isinstance(theirs, Tensor):
        return ""
    if ours.shape != theirs.shape or ours.dtype != theirs.dtype:
        return f"{list(ours.shape)} {ours.dtype} instead of {list(theirs.shape)} {theirs.dtype}"
    if not ours.is_floating_point():
        return "" if torch.equal(ours, theirs) else "other whole numbers"
    usual = theirs.isfinite()
    if not torch.equal(usual, ours.isfinite()):
        return "other numbers are finite"
    lost = float((ours[usual].double() - theirs[usual].double()).norm())
    whole = float(theirs[usual].double().norm())
    floor = _FLOOR * ours.numel() ** 0.5  # ONNX Runtime rounds a sigmoid below it to nought
    return f"relative difference {lost / (whole or 1):.1g}" if lost > TOLERANCE * whole + floor else ""
