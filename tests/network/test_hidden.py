"""Hidden channels are found where nothing mixes or keeps them, and pruning them is exact."""

import copy
from dataclasses import replace
from math import prod

import pytest
import torch
from torch import nn
from torch.nn import functional

from tuckertree import TuckertreeError, UsageError
from tuckertree.core.layers import DENSE_TYPES, LayerSpec
from tuckertree.network.channels import prune, silence
from tuckertree.network.hidden import find_hidden, may_go
from tuckertree.network.probing import check_hidden
from tuckertree.planning import Options, take_inventory
from tuckertree.planning.channels import HiddenChannels, Part, Pruning

IMAGE = torch.randn(2, 3, 12, 12, generator=torch.Generator().manual_seed(0))


class Gate(nn.Module):
    """Squeeze and excitation."""

    def __init__(self, channels):
        super().__init__()
        self.down, self.up = nn.Conv2d(channels, 8, 1), nn.Conv2d(8, channels, 1)

    def forward(self, x):
        return x * self.up(self.down(x.mean((2, 3), keepdim=True)).relu()).sigmoid()


class Block(nn.Module):
    """An inverted residual."""

    def __init__(self, channels, hidden, gate=True):
        super().__init__()
        self.expand, self.norm = nn.Conv2d(channels, hidden, 1, bias=False), nn.BatchNorm2d(hidden)
        self.mid, self.norm2 = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden), nn.BatchNorm2d(hidden)
        self.gate = Gate(hidden) if gate else nn.Identity()
        self.act, self.project = nn.PReLU(hidden), nn.Conv2d(hidden, channels, 1)

    def forward(self, x):
        y = self.norm2(self.mid(functional.silu(self.norm(self.expand(x)))))
        return x + self.project(self.act(self.gate(y)))


class Concatenates(nn.Module):
    """Two layers' channels, which one module takes together; the image's too, if asked for."""

    def __init__(self, *middle, image=False):
        super().__init__()
        self.image, self.middle = image, nn.Sequential(*middle)
        self.one, self.two = nn.Conv2d(3, 8, 1), nn.Conv2d(3, 10, 1)
        self.last = nn.Conv2d(21 if image else 18, 4, 1)

    def forward(self, x):
        some = [self.one(x), self.two(x)]
        return self.last(self.middle(torch.cat([x, *some] if self.image else some, 1)))


class Halves(Concatenates):
    """Takes what was concatenated apart again, in the middle."""

    def forward(self, x):
        one, two = torch.cat([self.one(x), self.two(x)], 1).chunk(2, 1)
        return self.last(torch.cat([one.relu(), two], 1))


class Dense(nn.Module):
    """A block of a DenseNet: each layer reads all before it, through a BatchNorm of its own."""

    def __init__(self, layers=3, growth=8):
        super().__init__()
        self.first = nn.Conv2d(3, 12, 3, padding=1)
        widths = [12 + growth * number for number in range(layers + 1)]
        self.layers = nn.ModuleList(
            nn.Sequential(nn.BatchNorm2d(width), nn.ReLU(), nn.Conv2d(width, growth, 3, padding=1))
            for width in widths[:-1]
        )
        self.norm, self.last = nn.BatchNorm2d(widths[-1]), nn.Linear(widths[-1], 4)

    def forward(self, x):
        x = self.first(x)
        for layer in self.layers:
            x = torch.cat([x, layer(x)], 1)
        return self.last(self.norm(x).relu().mean((2, 3)))


class UNet(nn.Module):
    """Its first channels are read at once, and again beside those that come back."""

    def __init__(self):
        super().__init__()
        self.down, self.deep = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 16, 3, padding=1)
        self.up, self.last = nn.ConvTranspose2d(16, 12, 2, 2), nn.Conv2d(20, 4, 3, padding=1)

    def forward(self, x):
        skip = self.down(x).relu()
        deep = self.deep(functional.max_pool2d(skip, 2)).relu()
        return self.last(torch.cat([self.up(deep), skip], 1))


class Pyramid(nn.Module):
    """The same channels pooled in several ways, side by side."""

    def __init__(self):
        super().__init__()
        self.one, self.last = nn.Conv2d(3, 8, 1), nn.Conv2d(24, 4, 1)

    def forward(self, x):
        y = self.one(x)
        return self.last(torch.cat([y, *(functional.max_pool2d(y, k, 1, k // 2) for k in (3, 5))], 1))


class ShortCut(nn.Module):
    """A residual block whose end is concatenated with other channels."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 9, 1), nn.Conv2d(9, 8, 1)
        self.beside, self.last = nn.Conv2d(3, 8, 1), nn.Conv2d(16, 4, 1)

    def forward(self, x):
        y = self.a(x)
        return self.last(torch.cat([self.beside(x), y + self.c(self.b(y).relu())], 1))


class Returns(nn.Module):
    """Gives its hidden channels away, too."""

    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 4, 1)

    def forward(self, x):
        y = self.one(x)
        return self.two(y), y


class Elsewhere(Returns):
    """Uses them in a function with a weight of its own."""

    def forward(self, x):
        y = self.one(x)
        return self.two(y).mean() + functional.conv2d(y, torch.ones(1, 8, 1, 1)).mean()


class Counts(Returns):
    """Knows how many they are."""

    def forward(self, x):
        y = self.one(x)
        return self.two(y) * y.shape[1]


class Mixes(nn.Module):
    def __init__(self, mix):
        super().__init__()
        self.one, self.mix, self.two = nn.Conv2d(3, 8, 1), mix, nn.Conv2d(8, 4, 1)

    def forward(self, x):
        return self.two(self.mix(self.one(x)))


class Sorts(nn.Module):
    def forward(self, x):
        return x.sort(1).values


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.same, self.last = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 4, 1)

    def forward(self, x):
        return self.last(self.same(self.same(self.one(x))))


def plain(*middle, channels=8):
    return nn.Sequential(nn.Conv2d(3, channels, 3, padding=1), *middle, nn.Conv2d(channels, 4, 3))


NETWORKS = {  # with the producers of the hidden channels
    "plain": (plain(nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.MaxPool2d(2)), {("0",)}),
    "dropout": (plain(nn.Dropout2d(0.5), nn.Hardswish()), {("0",)}),
    "instance norm": (plain(nn.InstanceNorm2d(8, affine=True)), {("0",)}),
    "three": (nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 9, 3), nn.GELU(), nn.Conv2d(9, 4, 1)),
              {("0",), ("2",)}),
    "inverted": (nn.Sequential(nn.Conv2d(3, 8, 1), Block(8, 24, gate=False), Block(8, 16, gate=False)),
                 {("1.expand",), ("2.expand",)}),
    "gated": (nn.Sequential(nn.Conv2d(3, 8, 1), Block(8, 24)), {("1.expand", "1.gate.up"), ("1.gate.down",)}),
    "transposed": (nn.Sequential(nn.ConvTranspose2d(3, 8, 2, 2), nn.ReLU(), nn.ConvTranspose2d(8, 4, 2, 2)), {("0",)}),
    "linear": (nn.Sequential(nn.Flatten(), nn.Linear(432, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 4)), {("1",)}),
    "to linear": (nn.Sequential(nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)), {("0",)}),
    "concatenates": (Concatenates(), {("one",), ("two",)}),
    "norm behind": (Concatenates(nn.BatchNorm2d(18), nn.ReLU(), nn.MaxPool2d(2)), {("one",), ("two",)}),
    "depthwise behind": (Concatenates(nn.Conv2d(18, 18, 3, groups=18), nn.PReLU(18)), {("one",), ("two",)}),
    "beside the image": (Concatenates(image=True), {("one",), ("two",)}),
    "dense block": (Dense(), {("first",), ("layers.0.2",), ("layers.1.2",), ("layers.2.2",)}),
    "u-net": (UNet(), {("down",), ("deep",), ("up",)}),
    "pyramid": (Pyramid(), {("one",)}),
    "short cut": (ShortCut(), {("a", "c"), ("b",), ("beside",)}),
    "shuffles both": (Concatenates(nn.ChannelShuffle(2)), set()),
    "mixes both": (Concatenates(nn.GroupNorm(3, 18)), set()),
    "halves": (Halves(), set()),
    "returns": (Returns(), set()),
    "elsewhere": (Elsewhere(), set()),
    "counts": (Counts(), set()),
    "group norm": (Mixes(nn.GroupNorm(2, 8)), set()),
    "layer norm": (Mixes(nn.LayerNorm((8, 12, 12))), set()),
    "softmax": (Mixes(nn.Softmax(1)), set()),
    "sorts": (Mixes(Sorts()), set()),
    "shuffles": (Mixes(nn.ChannelShuffle(2)), set()),
    "grouped": (Mixes(nn.Conv2d(8, 8, 3, groups=4)), set()),
    "multiplies": (Mixes(nn.Conv2d(8, 8, 3, groups=8)), {("one",)}),
    "twice": (Twice(), set()),
}  # fmt: skip


def hidden_of(network):
    inventory = take_inventory(network, IMAGE)
    return check_hidden(network, find_hidden(network, inventory, IMAGE), IMAGE)


@pytest.mark.parametrize("kind", NETWORKS)
def test_hidden_channels_are_those_that_can_go(kind):
    network, producers = copy.deepcopy(NETWORKS[kind])
    network.eval()
    before = copy.deepcopy(network.state_dict())
    found = hidden_of(network)
    assert {each.producers for each in found} == producers
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    for each in found:  # one, and all but one
        for kept in ((1,), tuple(range(1, each.channels))):
            silenced, some = copy.deepcopy(network), [Pruning(each, kept)]
            silence(silenced, some)
            pruned = prune(network, some)
            torch.testing.assert_close(pruned(IMAGE), silenced(IMAGE))
            gone = sum(p.numel() for p in network.parameters()) - sum(p.numel() for p in pruned.parameters())
            assert gone == (each.channels - len(kept)) * (weights_of(network, each) + each.beside)


def weights_of(network, hidden):
    """How many weights of layers each of some channels has."""
    found = 0
    for name in hidden.modules:
        module = network.get_submodule(name)
        if isinstance(module, DENSE_TYPES):
            shape = LayerSpec.of(module).kernel_shape
            size = shape[1] if hidden.side(name) == "inputs" else module.weight.numel() // prod(shape[1:])
            found += module.weight.numel() // size * hidden.times(name)
    return found


@pytest.mark.parametrize(
    "kind", ["dense block", "u-net", "pyramid", "short cut", "beside the image", "depthwise behind"]
)
def test_parts_of_all_channels_can_go_at_once(kind):
    network = copy.deepcopy(NETWORKS[kind][0]).eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean)
    generator = torch.Generator().manual_seed(3)
    pruned = [
        Pruning(each, tuple(sorted(torch.randperm(each.channels, generator=generator)[:3].tolist())))
        for each in hidden_of(network)
    ]
    silenced = copy.deepcopy(network)
    silence(silenced, pruned)
    small = prune(network, pruned)
    torch.testing.assert_close(small(IMAGE), silenced(IMAGE))
    again = hidden_of(small)  # what is left may go in the same way
    assert [each.producers for each in again] == []  # but three channels are not worth it


def test_a_module_that_reads_a_part_says_where():
    (found,) = hidden_of(copy.deepcopy(NETWORKS["pyramid"][0]))
    assert found.parts == (Part("last", (0, 8, 16)),)
    assert Pruning(found, (0, 1, 2, 4, 5, 6, 7)).gone("last") == (3, 11, 19)
    pruned = [Pruning(replace(found, parts=(Part("last", (0, 8, 17)),)), (1, 2))]
    with pytest.raises(TuckertreeError, match="last has 24 channels here; the plan says 25 or more"):
        prune(NETWORKS["pyramid"][0], pruned)
    pruned = [Pruning(replace(found, parts=(Part("last", (0, 8, 9)),)), (1, 2))]
    with pytest.raises(TuckertreeError, match="last: hidden channels that go overlap"):
        prune(NETWORKS["pyramid"][0], pruned)


@pytest.mark.parametrize("parts", [(Part("one", (0,)),), (Part("last", (0,)), Part("last", (8,)))])
def test_parts_are_of_what_reads_the_channels(parts):
    with pytest.raises(UsageError, match="parts"):
        HiddenChannels(8, ("one",), (), ("last",), parts=parts)
    for starts in ((), (-1,), (8, 0)):
        with pytest.raises(UsageError, match="starts"):
            Part("last", starts)


def test_a_layer_left_out_keeps_all_that_it_reads():
    network = copy.deepcopy(NETWORKS["dense block"][0]).eval()
    inventory = take_inventory(network, IMAGE)
    found = find_hidden(network, inventory, IMAGE)
    left = may_go(network, found, inventory, Options(exclude=("layers.2.2",)).among(inventory.layers))
    assert left == []  # it reads the others' and gives its own
    network.layers[1][0].weight.requires_grad_(False)
    left = may_go(network, found, inventory, Options())
    assert [each.producers for each in left] == [("layers.1.2",), ("layers.2.2",)]


def test_pruning_several_at_once_is_pruning_one_after_the_other():
    network = NETWORKS["three"][0].eval()
    first, second = (Pruning(each, (0, 3, 5)) for each in hidden_of(network))
    torch.testing.assert_close(
        prune(network, [first, second])(IMAGE), prune(prune(network, [first]), [second])(IMAGE)
    )


def test_layers_left_out_and_frozen_ones_keep_their_channels():
    network = copy.deepcopy(NETWORKS["three"][0])
    inventory = take_inventory(network, IMAGE)
    found = find_hidden(network, inventory, IMAGE)
    left = may_go(network, found, inventory, Options(exclude=("4",)).among(inventory.layers))
    assert [each.producers for each in left] == [("0",)]
    network[0].bias.requires_grad_(False)
    assert [e.producers for e in may_go(network, found, inventory, Options())] == [("2",)]


@pytest.mark.parametrize("tie", ["shared", "weight norm", "parametrized"])
def test_weights_that_are_not_a_layers_own_stay(tie):
    network = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 4, 1))
    if tie == "shared":
        network[2].weight = network[1].weight
    elif tie == "weight norm":
        network[1] = nn.utils.parametrizations.weight_norm(network[1])
    else:
        nn.utils.parametrizations.orthogonal(network[1])
    assert all(not {"1", "2"} & {*each.modules} for each in hidden_of(network.eval())) or tie != "shared"
    found = hidden_of(network)
    assert all("1" not in each.modules for each in found)


@pytest.mark.parametrize("change", [
    lambda net: net.pop(-1) and net,
    lambda net: nn.Sequential(nn.Conv2d(3, 6, 1), nn.ReLU(), nn.Conv2d(6, 9, 3)),
    lambda net: nn.Sequential(nn.ReLU(), nn.ReLU(), nn.Conv2d(8, 9, 3)),
    lambda net: nn.Sequential(nn.Conv2d(4, 8, 1, groups=2), nn.ReLU(), nn.Conv2d(8, 9, 3)),
])  # fmt: skip
def test_a_plan_for_another_network_is_refused(change):
    network = nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 9, 3))
    pruned = [Pruning(HiddenChannels(8, ("0",), (), ("2",)), (1, 2))]
    with pytest.raises(TuckertreeError, match=r"^(the plan names|0 |0 has|2 )"):
        prune(change(network), pruned)
