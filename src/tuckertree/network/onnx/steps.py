"""What an ONNX graph does, step by step: layers and norms as modules of torch, other nodes as functions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from tuckertree.network.onnx.constants import is_standard
from tuckertree.network.onnx.fallback import NodeSession, captured_values
from tuckertree.network.onnx.files import OnnxFile, subgraphs
from tuckertree.network.onnx.graph import Graph
from tuckertree.network.onnx.layers import OnnxLayer, layer_module
from tuckertree.network.onnx.nodes import attributes_of, auto_pad_of
from tuckertree.network.onnx.operators import Function, Operation, function_of
from tuckertree.network.onnx.parameters import FLOATS

if TYPE_CHECKING:
    from onnx import NodeProto

Value = Any
"""A tensor; or an array, a sequence or a map of a kind that only ONNX Runtime has."""
LayerCall = Callable[..., Tensor]
_WITHOUT_MODES = 14
"""First opset in which an attribute, not the number of outputs, says that a BatchNormalization is in training."""
_TYPES = {"float32", "float64", "int64", "int32", "int16", "int8", "uint8", "bool"}


@dataclass(frozen=True)
class Step:
    """One node, or a product with the addition of its bias.

    Attributes
    ----------
    node
        The node; of a product that of the product.
    inputs, outputs
        Names of values; '' is one that is left out.
    function
        Takes the inputs, of a module's step the module before them; None where ONNX Runtime does it.
    session
        Does it where there is no function, or an input is no tensor.
    module
        Name of the module that does it, or ''.
    last
        Values that no later step takes.
    """

    node: NodeProto
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    function: Function | None
    session: NodeSession
    module: str = ""
    last: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """What to call it in messages."""
        return f"{self.node.name or self.node.output[0]} ({self.node.op_type})"


class Norm(_BatchNorm):
    """A BatchNormalization over inputs of any number of axes."""

    def _check_input_dim(self, input: Tensor) -> None: ...  # noqa: A002  (torch's name)


@dataclass(frozen=True)
class NormConstants:
    """The constants of a BatchNormalization that nothing else uses.

    Attributes
    ----------
    scale, shift, mean, variance
        Names of their values.
    """

    scale: str
    shift: str
    mean: str
    variance: str

    def named(self) -> dict[str, str]:
        """Names of the constants by the names that torch's norm has for them."""
        return {
            "weight": self.scale,
            "bias": self.shift,
            "running_mean": self.mean,
            "running_var": self.variance,
        }


class Steps:
    """Makes the steps of a graph, and the modules that do some of them.

    Attributes
    ----------
    steps
        In order.
    modules
        By name: layers under the layers' names, and norms.
    norms
        Constants of the norms by name.
    """

    def __init__(self, file: OnnxFile, graph: Graph, layers: Mapping[str, OnnxLayer]) -> None:
        self.modules: dict[str, nn.Module] = {}
        self.norms: dict[str, NormConstants] = {}
        self.steps: list[Step] = []
        self._file, self._graph, self._taken = file, graph, layers.keys()
        own = {found.node.output[0]: found for found in layers.values() if found.weight is not None}
        absorbed = dict(_absorbed(graph, own.values()))
        skipped = {node.output[0] for node in absorbed.values()}
        for node in graph.nodes:
            if not node.output or node.output[0] in skipped or node.output[0] in graph.constants:
                continue
            found = own.get(node.output[0])
            if found is not None:
                after = absorbed.get(node.output[0])
                self._add_layer(found, (after or node).output[0])
            elif not self._add_norm(node):
                self._add(node)
        self._mark_last()

    def _add(self, node: NodeProto) -> None:
        outputs = tuple(node.output)
        wanted = max(place + 1 for place, name in enumerate(outputs) if name)
        if node.op_type == "Split":
            wanted = len(outputs)  # equal parts go by their number
        function = None
        if is_standard(node.domain) and not any(subgraphs(node)):
            function = function_of(Operation(node.op_type, attributes_of(node), self._graph.opset, wanted))
        inputs = (*node.input, *captured_values(node, node.input))
        self.steps.append(Step(node, inputs, outputs, function, self._session(node)))

    def _add_layer(self, found: OnnxLayer, output: str) -> None:
        name, node = found.layer.name, found.node
        call, padding = _layer_call(found)
        self.modules[name] = layer_module(self._file, found, padding)
        bias = node.input[2] if len(node.input) > 2 and found.bias is None else ""
        step = Step(node, (node.input[0], bias), (output,), call, self._session(node), name)
        self.steps.append(step)

    def _add_norm(self, node: NodeProto) -> bool:
        """Make a module of a BatchNormalization in evaluation mode whose constants are its own."""
        graph, given = self._graph, attributes_of(node)
        names = tuple(node.input[1:])
        tensors = [graph.constants.get(name) for name in names]
        if (
            node.op_type != "BatchNormalization"
            or not is_standard(node.domain)
            or given.get("training_mode", 0)
            or given.get("spatial", 1) != 1
            or (graph.opset < _WITHOUT_MODES and len(node.output) > 1)
            or any(graph.uses[name] != 1 for name in names)
            or any(t is None or t.data_type not in FLOATS for t in tensors)
        ):
            return False
        arrays = [as_computed(self._file.array(t)) for t in tensors if t is not None]
        scale, shift, mean, variance = arrays
        norm = Norm(len(mean), eps=given.get("epsilon", 1e-5), dtype=mean.dtype)
        with torch.no_grad():
            for own, value in ((norm.weight, scale), (norm.bias, shift), (norm.running_mean, mean)):
                own.copy_(value)  # type: ignore[union-attr]
            norm.running_var.copy_(variance)  # type: ignore[union-attr]
        name = node.name or node.output[0]
        while name in self.modules or name in self._taken:
            name += "_norm"
        self.modules[name] = norm.eval()
        self.norms[name] = NormConstants(*names)
        step = Step(node, (node.input[0],), (node.output[0],), _call_norm, self._session(node), name)
        self.steps.append(step)
        return True

    def _session(self, node: NodeProto) -> NodeSession:
        return NodeSession(self._file, self._graph, node)

    def _mark_last(self) -> None:
        later = set(self._graph.outputs)
        for place in range(len(self.steps) - 1, -1, -1):
            step = self.steps[place]
            names = {*step.inputs, *step.outputs} - {""}
            last = tuple(names - later)
            later |= names
            self.steps[place] = replace(step, last=last)


def as_computed(array: Any) -> Value:
    """A value as it is computed with: float16 as float32; what torch has no type for stays an array."""
    if isinstance(array, Tensor):
        return array.float() if array.dtype in (torch.float16, torch.bfloat16) else array
    if not hasattr(array, "dtype"):
        return array
    if array.dtype.name in ("float16", "bfloat16"):
        array = array.astype("float32")
    if array.dtype.name not in _TYPES:
        return array
    return torch.from_numpy(array if array.flags.writeable else array.copy())


def _absorbed(graph: Graph, layers: Iterable[OnnxLayer]) -> Iterator[tuple[str, NodeProto]]:
    """Additions of biases to products, by the products' outputs."""
    for found in layers:
        bias = found.bias
        if bias is not None and bias.name not in found.node.input:
            (after,) = graph.consumers(found.node.output[0])
            yield found.node.output[0], after


def _call_norm(norm: Norm, x: Tensor) -> Tensor:
    result: Tensor = norm(x)
    return result


def _layer_call(found: OnnxLayer) -> tuple[LayerCall, tuple[int, ...]]:
    """What runs a layer's module in its node's place, and the padding that the module has itself."""
    spec, given = found.layer.spec, attributes_of(found.node)
    if not spec.order:
        alpha, beta = float(given.get("alpha", 1.0)), float(given.get("beta", 1.0))

        def product(module: nn.Module, x: Tensor, bias: Tensor | None = None) -> Tensor:
            y: Tensor = module(x.mT if given.get("transA") else x)
            y = y if alpha == 1 else alpha * y
            return y if bias is None else y + beta * bias

        return product, ()
    pads, padding, same = _paddings(found)

    def convolution(module: nn.Module, x: Tensor, bias: Tensor | None = None) -> Tensor:
        before = _same_pads(x.shape[2:], found, upper=same == "SAME_UPPER") if same else pads
        x = x if spec.transposed or not any(before) else functional.pad(x, before)
        y: Tensor = module(x)
        if spec.transposed and any(before):
            y = functional.pad(y, [-pad for pad in before])
        return y if bias is None else y + bias.reshape(-1, *(1,) * spec.order)

    return convolution, padding


def _paddings(found: OnnxLayer) -> tuple[list[int], tuple[int, ...], str]:
    """What is padded (of a transposed convolution cut off) outside the module, its own padding, and ``auto_pad``.

    The first is in the order of ``torch.nn.functional.pad``: the last axis first, before and after it.
    """
    node, spec = found.node, found.layer.spec
    auto_pad, none = auto_pad_of(node), (0,) * spec.order
    if auto_pad == "VALID":
        return [], none, ""
    if auto_pad == "NOTSET":
        given = attributes_of(node).get("pads", none * 2)
        pairs = list(zip(given[: spec.order], given[spec.order :], strict=True))
    elif spec.transposed:
        pairs = []
        for axis in range(spec.order):
            reach = spec.dilation[axis] * (spec.kernel_size[axis] - 1) + 1
            pairs.append(_halves(reach + spec.output_padding[axis] - spec.stride[axis], auto_pad))
    else:
        return [], none, auto_pad
    if all(before == after >= 0 for before, after in pairs):
        return [], tuple(before for before, _ in pairs), ""
    return [pad for pair in reversed(pairs) for pad in pair], none, ""


def _same_pads(sizes: Sequence[int], found: OnnxLayer, *, upper: bool) -> list[int]:
    spec, pads = found.layer.spec, list[int]()
    for axis in reversed(range(spec.order)):
        reach = spec.dilation[axis] * (spec.kernel_size[axis] - 1) + 1
        outside = -(-sizes[axis] // spec.stride[axis])
        total = (outside - 1) * spec.stride[axis] + reach - sizes[axis]
        pads += _halves(total, "SAME_UPPER" if upper else "SAME_LOWER")
    return pads


def _halves(total: int, auto_pad: str) -> tuple[int, int]:
    less, more = max(total, 0) // 2, -(-max(total, 0) // 2)
    return (less, more) if auto_pad == "SAME_UPPER" else (more, less)
