"""A chain of every kind of layer, small and always the same."""

import copy

import torch
from torch import nn

from tuckertree.core.layers import LayerSpec, factorize

NORMS = {0: nn.BatchNorm1d, 1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
LAYERS = {
    "conv1d": (nn.Conv1d(6, 8, 3, padding=2, dilation=2), (2, 6, 9)),
    "conv2d": (nn.Conv2d(6, 8, 3, padding=1, bias=False), (2, 6, 7, 8)),
    "conv2d groups": (nn.Conv2d(6, 8, 3, stride=2, groups=2), (2, 6, 7, 8)),
    "conv2d reflect": (nn.Conv2d(6, 8, (3, 5), padding=(1, 2), padding_mode="reflect"), (2, 6, 7, 8)),
    "conv2d 1x1": (nn.Conv2d(6, 8, 1, stride=2, bias=False), (2, 6, 7, 8)),
    "conv3d": (nn.Conv3d(4, 6, (3, 1, 3), padding="same", padding_mode="circular"), (1, 4, 5, 4, 5)),
    "linear": (nn.Linear(6, 8), (3, 6)),
    "transposed 1d": (nn.ConvTranspose1d(6, 8, 3, stride=2, output_padding=1), (2, 6, 5)),
    "transposed 2d": (
        nn.ConvTranspose2d(6, 8, (3, 1), stride=(2, 3), padding=(1, 0), bias=False),
        (2, 6, 5, 4),
    ),
    "transposed 2d groups": (nn.ConvTranspose2d(6, 8, 3, stride=2, groups=2), (2, 6, 5, 4)),
    "transposed 3d": (nn.ConvTranspose3d(4, 6, (2, 3, 3), stride=2, dilation=2), (1, 4, 3, 3, 3)),
}


def chain_of(name, rank=3, method="ht2"):
    layer, shape = copy.deepcopy(LAYERS[name][0]), LAYERS[name][1]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for parameter in layer.parameters():
            nn.init.normal_(parameter)
        x = torch.randn(shape)
    cuts = len(LayerSpec.of(layer).nontrivial_modes) + 1 if method == "ht2" else 1
    return factorize(layer, method, (rank,) * cuts).eval(), x


def batch_norm(chain):
    norm = NORMS[chain.dense.order](chain.out_channels).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for values in (norm.weight, norm.bias, norm.running_mean):
            values.normal_(generator=generator)
        norm.running_var.uniform_(0.3, 2, generator=generator)
        norm.weight[0] = 0  # a channel that training has switched off
    return norm


def state(chain):
    return {name: value.clone() for name, value in chain.state_dict().items()}


def assert_unchanged(chain, before):
    after = chain.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(value, before[name]) for name, value in after.items())
