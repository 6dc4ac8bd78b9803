"""Models that do more with their layers than call them, each by one trick."""

import copy
import weakref
from dataclasses import dataclass
from functools import partial
from types import MethodType, SimpleNamespace

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812
from torch.nn.utils import parametrizations
from torch.utils.checkpoint import checkpoint

REGISTRY = {}
COUNT = [0]


class Net(nn.Module):
    """Two convolutions; weights of rank 2, so that a chain can be exact."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.norm = nn.Conv2d(3, 16, 3), nn.Conv2d(16, 16, 3), nn.BatchNorm2d(16)
        for layer in (self.a, self.b):
            low_rank(layer)
        self.setup()

    def setup(self):
        """What the trick needs."""

    def forward(self, x):
        return self.b(self.norm(self.a(x)).relu())


@torch.no_grad()
def low_rank(layer):
    """Give a convolution a kernel of rank 2 in its channels, and 1 in its taps."""
    outputs, inputs, *taps = layer.weight.shape
    channels = torch.randn(outputs, 2) @ torch.randn(2, inputs) / inputs
    layer.weight.copy_(channels[:, :, None, None] * torch.randn(taps[0], 1) * torch.randn(1, taps[1]))


# Equal, both layers compressed ---------------------------------------------------------------------------------


class BoundMethod(Net):
    def setup(self):
        self.call = self.b.__call__

    def forward(self, x):
        return self.call(self.a(x).relu())


class Partial(Net):
    def setup(self):
        self.f = partial(self.b)

    def forward(self, x):
        return self.f(self.a(x).relu())


class InContainers(Net):
    def setup(self):
        self.table = {"a": (self.a,), "b": [self.b]}

    def forward(self, x):
        return self.table["b"][0](self.table["a"][0](x).relu())


@dataclass
class Pair:
    first: nn.Module
    second: nn.Module


class InDataclass(Net):
    def setup(self):
        object.__setattr__(self, "pair", Pair(self.a, self.b))

    def forward(self, x):
        return self.pair.second(self.pair.first(x).relu())


class ReadsWeight(Net):
    def forward(self, x):
        return self.b(self.a(x)) * self.b.weight.abs().max() + self.a.bias.sum()


class Dropped(Net):
    def forward(self, x):
        return self.b(F.dropout(self.a(x), 0.3, training=self.training))


class SwitchesOnTraining(Net):
    def forward(self, x):
        y = self.b(self.a(x))
        return {"out": y, "more": y.mean()} if self.training else y


class Counts(Net):
    def setup(self):
        self.calls = 0
        self.register_buffer("average", torch.zeros(()))

    def forward(self, x):
        self.calls += 1
        y = self.a(x)
        self.average.lerp_(y.mean(), 0.5)
        return self.b(y) + self.average * self.calls


class Checkpointed(Net):
    def forward(self, x):
        return self.b(checkpoint(self.a, x, use_reentrant=False))


class MethodsInList(Net):
    def setup(self):
        self.steps = [self.first, self.b]

    def first(self, x):
        return self.a(x).relu()

    def forward(self, x):
        for step in self.steps:
            x = step(x)
        return x


class InClassOnTheWay(Net):
    store = {}  # noqa: RUF012 (shared it is meant to be)

    def forward(self, x):
        self.store["x"] = self.a(x)
        return self.b(self.store["x"])


class DataDependent(Net):
    def forward(self, x):
        y = self.a(x)
        return self.b(y) if x.mean() > -1e9 else y.sum()


class PatchedByType(Net):
    def setup(self):
        self.forward = MethodType(lambda net, x: 2 * Net.forward(net, x), self)


class CountingHook(Net):
    def setup(self):
        seen = []
        self.a.register_forward_hook(lambda *_: seen.append(1) and None)
        self.norm.register_forward_hook(lambda *_: seen.append(1) and None)


class LazyLayer(Net):
    def setup(self):
        self.extra = None

    def forward(self, x):
        if self.extra is None:
            self.extra = nn.Conv2d(16, 4, 1)
        return self.extra(super().forward(x))


class KeepsUnused(Net):
    def setup(self):
        self.everything = list(self.parameters())


class OwnCopy(Net):
    def __deepcopy__(self, memo):
        twin = type(self)()
        memo[id(self)] = twin
        for name, module in self._modules.items():
            setattr(twin, name, copy.deepcopy(module, memo))
        return twin


# The second layer must stay dense, the first need not --------------------------------------------------------


class AsksForInstance(Net):
    def forward(self, x):
        x = self.a(x)
        return self.b(F.pad(x, (1, 1, 1, 1), mode="reflect") if isinstance(self.b, nn.Conv2d) else x)


class AsksForType(Net):
    def forward(self, x):
        x = self.a(x)
        return self.b(x) * (2 if type(self.b) is nn.Conv2d else 1)


class AsksForName(Net):
    def forward(self, x):
        x = self.a(x)
        return self.b(x) * (2 if self.b.__class__.__name__ == "Conv2d" else 1)


class WritesWeight(Net):
    def forward(self, x):
        y = self.b(self.a(x))
        self.b.weight.data.mul_(0.9)
        return y


class WritesWeightInTraining(Net):
    def forward(self, x):
        if self.training:
            with torch.no_grad():
                self.b.weight.mul_(0.5)
        return self.b(self.a(x))


class WeightInList(Net):
    def setup(self):
        self.tied = [self.b.weight]

    def forward(self, x):
        return F.conv_transpose2d(super().forward(x), self.tied[0])


class DetachedWeight(Net):
    def setup(self):
        self.tied = SimpleNamespace(weight=self.b.weight.detach())

    def forward(self, x):
        return F.conv_transpose2d(super().forward(x), self.tied.weight)


class BoundForward(Net):
    def setup(self):
        self.f = self.b.forward

    def forward(self, x):
        return self.f(self.a(x)) + self.b(self.a(x))


class SumsParameters(Net):
    def forward(self, x):
        return super().forward(x) + sum(p.sum() for p in self.b.parameters())


class CallsInside(Net):
    def forward(self, x):
        return self.b._conv_forward(self.a(x), self.b.weight, self.b.bias) + self.b(self.a(x))


# The model must be refused --------------------------------------------------------------------------------------


class HookInClosure(Net):
    def setup(self):
        store = {}
        self.norm.register_forward_hook(lambda module, args, output: store.update(mid=output))
        self.store = store

    def forward(self, x):
        y = self.b(self.norm(self.a(x)))
        return y + self.store["mid"].mean()


class HookOnOriginal(Net):
    def setup(self):
        self.norm.register_forward_hook(
            lambda *_: self.b(torch.zeros(1, 16, 3, 3)) * 0 + self.norm.weight.sum()
        )

    def forward(self, x):
        return self.b(self.a(x)) + self.norm(self.a(x)).sum()


class PatchedByClosure(Net):
    def setup(self):
        plain = self.forward
        self.forward = lambda x: 2 * plain(x)


class InRegistry(Net):
    def setup(self):
        REGISTRY[0] = self.b

    def forward(self, x):
        return REGISTRY[0](self.a(x)) + 0 * self.b(self.a(x))


class ByWeakref(Net):
    def setup(self):
        self.ref = weakref.ref(self.b)

    def forward(self, x):
        return self.ref()(self.a(x)) + 0 * self.b(self.a(x))


class CopiesItselfByReference(Net):
    def setup(self):
        self.norm.__class__ = SharedNorm


class SharedNorm(nn.BatchNorm2d):
    def __deepcopy__(self, memo):
        return self


class InClass(Net):
    """Keeps a layer in its class, where the copy finds the first model's."""

    cache = None

    def setup(self):
        InClass.cache = None

    def forward(self, x):
        InClass.cache = InClass.cache or [self.norm]
        return self.b(InClass.cache[0](self.a(x)))


class ByIdentity(Net):
    def setup(self):
        self.scales = {id(self.norm): 2}

    def forward(self, x):
        return super().forward(x) * self.scales.get(id(self.norm), 1)


class InLambda(Net):
    def setup(self):
        self.get = lambda: self.b

    def forward(self, x):
        return self.get()(self.a(x)) + 0 * self.b(self.a(x))


class CountsInClosure(Net):
    def setup(self):
        count = 0

        def hook(module, args, output):
            nonlocal count
            count += 1
            return output * count

        self.norm.register_forward_hook(hook)


# States, modes and chance ----------------------------------------------------------------------------------------


class Noisy(Net):
    """Gives other outputs each time, whatever the seed."""

    def forward(self, x):
        generator = torch.Generator()
        generator.seed()
        y = super().forward(x)
        return y + 1e-3 * torch.rand(y.shape, generator=generator)


class NoisyAndAsking(Noisy):
    def forward(self, x):
        return super().forward(x) * (2 if isinstance(self.b, nn.Conv2d) else 1)


class Merging(Net):
    """An adapter that goes into the weight for evaluation and comes out for training: with rounding each time."""

    def setup(self):
        self.delta = nn.Parameter(torch.randn_like(self.a.weight))

    def train(self, mode=True):
        if mode != self.training:
            self.a.weight.data += (-1 if mode else 1) * self.delta.data
        return super().train(mode)

    def forward(self, x):
        return super().forward(x) if not self.training else self.b(F.conv2d(x, self.a.weight + self.delta))


class Trembling(Net):
    """Writes all over itself before it fails in training mode."""

    def setup(self):
        self.log, self.table, self.array = [], {}, np.zeros(2)
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x):
        self.log.append(1)
        self.table["x"] = x
        self.array += 1
        self.seen += 1
        self.late = x
        np.random.rand()  # noqa: NPY002
        if self.training:
            self.a.weight.data.zero_()
            self.b = nn.Identity()
            raise ValueError("not in training mode")
        return super().forward(x)


def weight_normed():
    """A network under torch's weight norm and spectral norm, in part."""
    net = Net()
    net.a = parametrizations.weight_norm(net.a)
    net.c = parametrizations.spectral_norm(nn.Conv2d(16, 16, 1))
    net.forward = MethodType(lambda net, x: net.b(net.c(net.a(x))), net)
    return net


def tied_by_view():
    """Two convolutions whose weights are views of one memory."""
    net = Net()
    net.c = nn.Conv2d(16, 16, 3)
    net.c.weight = nn.Parameter(net.b.weight.detach())
    net.forward = MethodType(lambda net, x: net.c(net.b(net.a(x))), net)
    return net


class CentresWeight(Net):
    """Writes what is there already, but for the first time."""

    def forward(self, x):
        with torch.no_grad():
            self.b.weight.sub_(self.b.weight.mean((1, 2, 3), keepdim=True))
        return super().forward(x)


class RewritesWeight(Net):
    def forward(self, x):
        self.b.weight.data = self.b.weight.data.clone()
        return super().forward(x)


class Part(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        return self.layer(x)

    def __deepcopy__(self, memo):
        return Part(copy.deepcopy(self.layer))


class CopiesPart(Net):
    def setup(self):
        self.b = Part(self.b)


class Holder:
    def __init__(self, value):
        self._fields = {"value": value, "self": self}


class ReturnsObject(Net):
    keep = Holder

    def forward(self, x):
        y = super().forward(x)
        return {"out": y, "more": self.keep(y * (2 if type(self.b) is nn.Conv2d else 3))}


class ReturnsSparse(ReturnsObject):
    keep = staticmethod(torch.Tensor.to_sparse)


class Vmapped(Net):
    def forward(self, x):
        return torch.func.vmap(self.b)(self.a(x))


class TakesParameter(Net):
    """A module is called with a parameter."""

    def setup(self):
        self.identity = nn.Identity()
        self.token = nn.Parameter(torch.ones(()))

    def forward(self, x):
        return self.b(self.a(x)) * self.identity(self.token)


class Routed(Net):
    """Goes by another layer where the outputs are not exactly those of the dense network."""

    def setup(self):
        self.c = nn.Conv2d(16, 16, 3)
        low_rank(self.c)
        with torch.no_grad():
            self.c.weight.add_(0.01 * torch.randn_like(self.c.weight))
        self.register_buffer("sum", torch.zeros(()))

    def forward(self, x):
        y = self.a(x)
        return self.c(y) if torch.isclose(y.sum(), self.sum, 1e-5) else self.b(y)


EQUAL = (
    BoundMethod, Partial, InContainers, InDataclass, ReadsWeight, Dropped, SwitchesOnTraining, Counts,
    Checkpointed, DataDependent, MethodsInList, InClassOnTheWay, PatchedByType, CountingHook, LazyLayer, KeepsUnused, OwnCopy,
    weight_normed, tied_by_view, Vmapped, TakesParameter,
)  # fmt: skip
DENSE = {
    AsksForInstance: "with a chain in its place: it returns tensors of another number, shape or type",
    AsksForType: "its output differs by",
    AsksForName: "its output differs by",
    WritesWeight: "the model's forward writes into its weight",
    WritesWeightInTraining: "the model's forward writes into its weight",
    WeightInList: r"its weight is used apart from it, too: tied\[0\]",
    DetachedWeight: r"its weight is used apart from it, too: tied\.weight",
    BoundForward: "the model does not run .*'_conv_forward', in evaluation mode",
    SumsParameters: "its output differs",
    CentresWeight: "the model's forward writes into its weight",
    RewritesWeight: "a weight is written into",
    CopiesPart: "with a chain in its place: it cannot be copied with one",
    ReturnsObject: "its output differs by 0.5",
    ReturnsSparse: "its output differs by 0.5",
    CallsInside: "the model does not run .*'_conv_forward', in evaluation mode",
}
REFUSED = {
    HookInClosure: "both use norm's hook <lambda>, variable store",
    HookOnOriginal: "both use norm's hook <lambda>, variable self",
    PatchedByClosure: r"both use forward, variable plain\.__self__",
    InRegistry: r"both use the model's forward, global REGISTRY\[0\]",
    ByWeakref: r"both use ref\(\)",
    CopiesItselfByReference: "both use norm",
    InClass: r"both use the model's class attribute cache\[0\]",
    InLambda: "both use get, variable self",
    ByIdentity: "it seems to reach back into the original, or to keep a count",
    CountsInClosure: "both use norm's hook hook, variable count",
}
