"""What follows a chain, made part of it: BatchNorm in its weights; a residual and ReLU in its last kernel."""

from __future__ import annotations

import copy
import operator
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor, fx, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_weights

from tuckertree.network.surgery import replace_layers
from tuckertree.runtimes.triton_chain import unfit

_RELUS = (functional.relu, torch.relu, torch.relu_, "relu", "relu_")
_ADDS = (operator.add, operator.iadd, torch.add, "add", "add_")
_ASSIGNING = (
    "iadd",
    "isub",
    "imul",
    "imatmul",
    "itruediv",
    "ifloordiv",
    "imod",
    "ipow",
    "iand",
    "ior",
    "ixor",
)
_IN_PLACE = (operator.setitem, *(getattr(operator, name) for name in _ASSIGNING))


class ChainWithEpilogue(nn.Module):
    """A chain, what is added to its result, and ReLU, as layers of torch: what the kernels do in one.

    Parameters
    ----------
    chain
        Convolutions one after the other.
    relu
        Whether ReLU is applied in the end.
    """

    def __init__(self, chain: nn.Sequential, *, relu: bool = False) -> None:
        super().__init__()
        self.chain, self.relu = chain, relu

    def forward(self, input: Tensor, residual: Tensor | None = None) -> Tensor:  # noqa: A002
        """Run the chain, add the residual, apply ReLU."""
        out: Tensor = self.chain(input)
        if residual is not None:
            out += residual
        return out.relu_() if self.relu else out


def is_fusable(module: nn.Module) -> bool:
    """Whether a module is a chain, or as plain a sequence, that the kernels can run."""
    return (
        isinstance(module, nn.Sequential)
        and len(module) > 1
        and not _is_watched(module)
        and not unfit(module)
    )


def with_epilogues(model: nn.Module, inputs: Sequence[Tensor]) -> nn.Module:
    """A network in evaluation mode in which each chain that the kernels can run has its epilogue.

    BatchNorms are folded into the convolution or chain before them, where its output goes nowhere else. All is found by
    ``torch.fx``; where that cannot trace the network, chains have no epilogue and nothing is folded.

    Parameters
    ----------
    model
        It is taken over: what is returned shares its modules.
    inputs
        What the network is called with, on its device: shapes of what is added are those that it has with them.
    """
    held = nn.Sequential(model) if is_fusable(model) else model
    try:
        traced = _traced(held, inputs)
    except Exception:  # of any class: what a network does when it is traced is its own
        chains = {name: module for name, module in held.named_modules() if is_fusable(module)}
        return replace_layers(held, {name: ChainWithEpilogue(chain) for name, chain in chains.items()})
    _fold_norms(traced)
    _fuse_epilogues(traced)
    traced.graph.lint()
    traced.recompile()
    traced.delete_all_unused_submodules()
    return traced


class _Proxy(fx.Proxy):
    """One that notes ``a += b`` as what it is: torch takes it for ``a + b``, whoever else has ``a``."""


def _assigning(name: str) -> Callable[[fx.Proxy, object], fx.Proxy]:
    def assign(self: fx.Proxy, other: object) -> fx.Proxy:
        return self.tracer.create_proxy("call_function", getattr(operator, name), (self, other), {})

    return assign


for _name in _ASSIGNING:
    setattr(_Proxy, f"__{_name}__", _assigning(_name))


class _Tracer(fx.Tracer):
    """Takes chains as a whole; they are found before: while it traces, weights are none."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self._chains = {module for module in model.modules() if is_fusable(module)}

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _Proxy(node, self)

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return m in self._chains or super().is_leaf_module(m, module_qualified_name)


class _Noting(fx.Interpreter):
    """Notes shape and type of each result."""

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        if isinstance(result, Tensor):
            n.meta["result"] = (result.shape, result.dtype, result.device)
        return result


def _traced(model: nn.Module, inputs: Sequence[Tensor]) -> fx.GraphModule:
    traced = fx.GraphModule(model, _Tracer(model).trace(model))
    with torch.inference_mode():
        _Noting(traced).run(*(x.clone() for x in inputs))
    return traced


def _fold_norms(traced: fx.GraphModule) -> None:
    calls = Counter(node.target for node in traced.graph.nodes if node.op == "call_module")
    for node in list(traced.graph.nodes):
        before = node.args[0] if len(node.args) == 1 and not node.kwargs else None
        if not (isinstance(before, fx.Node) and len(before.users) == 1):
            continue
        layer, norm = _called(traced, before), _called(traced, node)
        if (
            layer is None
            or norm is None
            or calls[before.target] > 1
            or (folded := _folded(layer, norm)) is None
        ):
            continue
        _put(traced, before, folded)
        node.replace_all_uses_with(before)
        traced.graph.erase_node(node)


def _folded(layer: nn.Module, norm: nn.Module) -> nn.Module | None:
    """A convolution or chain and a BatchNorm behind it as one; None if they are not, or cannot be."""
    last = layer[-1] if is_fusable(layer) else layer  # type: ignore[index]
    if (
        type(last) is not nn.Conv2d
        or type(norm) is not nn.BatchNorm2d
        or _is_watched(last)
        or _is_watched(norm)
    ):
        return None
    mean, variance, weight = norm.running_mean, norm.running_var, last.weight.detach()
    if norm.training or mean is None or variance is None or mean.dtype != weight.dtype:
        return None
    exact = torch.promote_types(weight.dtype, torch.float32)
    given = (weight, last.bias, mean, variance, norm.weight, norm.bias)
    first, bias, mean, variance, *rest = (None if x is None else x.detach().to(exact) for x in given)
    fused = fuse_conv_bn_weights(first, bias, mean, variance, norm.eps, *rest)  # type: ignore[arg-type]
    folded = copy.copy(last)
    folded._parameters = dict(last._parameters)
    folded.weight, folded.bias = (nn.Parameter(x.detach().to(weight.dtype), False) for x in fused)
    return nn.Sequential(*list(cast("nn.Sequential", layer))[:-1], folded) if last is not layer else folded


def _fuse_epilogues(traced: fx.GraphModule) -> None:
    graph = traced.graph
    for node in list(graph.nodes):
        chain = _called(traced, node)
        if chain is None or not is_fusable(chain) or len(node.args) != 1 or node.kwargs:
            continue
        found, residual, relu = [node], None, False
        if (user := _sole_user(node)) is not None and (added := _added(user, node)) is not None:
            found.append(user)
            residual = added
        if (user := _sole_user(found[-1])) is not None and _is_relu(traced, user):
            found.append(user)
            relu = True
        between = _between(node, found[-1])
        if any(_may_write(traced, other) for other in between if other not in found):
            found, residual, relu = [node], None, False
        name = f"chain_{node.name}"
        traced.add_submodule(name, ChainWithEpilogue(chain, relu=relu))  # type: ignore[arg-type]
        last = found[-1]
        with graph.inserting_before(last):
            new = graph.call_module(name, (*node.args, *([] if residual is None else [residual])))
        new.meta = dict(last.meta)
        last.replace_all_uses_with(new)
        for old in reversed(found):
            graph.erase_node(old)


def _called(traced: fx.GraphModule, node: fx.Node) -> nn.Module | None:
    return traced.get_submodule(str(node.target)) if node.op == "call_module" else None


def _put(traced: fx.GraphModule, node: fx.Node, module: nn.Module) -> None:
    """Put another module in the place of the one that a node calls, in the traced network alone."""
    parent, _, name = str(node.target).rpartition(".")
    setattr(traced.get_submodule(parent), name, module)


def _sole_user(node: fx.Node) -> fx.Node | None:
    return next(iter(node.users)) if len(node.users) == 1 else None


def _added(user: fx.Node, node: fx.Node) -> fx.Node | None:
    """What is added to a node's result, alike in shape and type; None where the user is no such sum."""
    if user.op not in ("call_function", "call_method") or user.target not in _ADDS or user.kwargs:
        return None
    if len(user.args) != 2 or not all(isinstance(arg, fx.Node) for arg in user.args):
        return None
    first, second = cast("tuple[fx.Node, fx.Node]", user.args)
    if first is second or (first is not node and _is_in_place(user)):
        return None
    other = second if first is node else first
    return other if "result" in other.meta and other.meta["result"] == node.meta.get("result") else None


def _is_relu(traced: fx.GraphModule, node: fx.Node) -> bool:
    if node.op == "call_module":
        module = _called(traced, node)
        return type(module) is nn.ReLU and not _is_watched(module)
    return node.op in ("call_function", "call_method") and node.target in _RELUS


def _between(first: fx.Node, last: fx.Node) -> list[fx.Node]:
    """Nodes of the graph after one and before another."""
    found, node = [], first.next
    while node is not last and first is not last:
        found.append(node)
        node = node.next
    return found


def _may_write(traced: fx.GraphModule, node: fx.Node) -> bool:
    """Whether a call may change a tensor that was there before: then it cannot change places with a chain."""
    if node.op == "call_module":
        return bool(getattr(_called(traced, node), "inplace", False))
    return node.op in ("call_function", "call_method") and _is_in_place(node)


def _is_in_place(node: fx.Node) -> bool:
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "_")
    is_written = "out" in node.kwargs or any(arg is True for arg in (*node.args, *node.kwargs.values()))
    return is_written or node.target in _IN_PLACE or (name.endswith("_") and not name.endswith("__"))


def _is_watched(module: nn.Module) -> bool:
    """Whether hooks see what a module does."""
    return any(part._forward_hooks or part._forward_pre_hooks for part in module.modules())
