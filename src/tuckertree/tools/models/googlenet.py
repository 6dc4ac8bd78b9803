"""GoogLeNet in the form of the BVLC model of Caffe.

Szegedy et al., "Going Deeper with Convolutions", CVPR 2015, without the two auxiliary classifiers. It differs
from torchvision's network of the same name, which has BatchNorm and 3x3 kernels in place of the 5x5 ones.

The layers keep Caffe's names, such as ``inception_3a/3x3_reduce``: a slash may be part of the name of a torch
module. They are therefore not nested, and weights converted from Caffe fit as they are.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True)
class Inception:
    """The widths of one inception module: what the 3x3 and 5x5 branches are reduced to, and all outputs."""

    name: str
    in_channels: int
    conv1x1: int
    reduce3x3: int
    conv3x3: int
    reduce5x5: int
    conv5x5: int
    pool_proj: int


STAGE_3 = (
    Inception("inception_3a", 192, 64, 96, 128, 16, 32, 32),
    Inception("inception_3b", 256, 128, 128, 192, 32, 96, 64),
)
STAGE_4 = (
    Inception("inception_4a", 480, 192, 96, 208, 16, 48, 64),
    Inception("inception_4b", 512, 160, 112, 224, 24, 64, 64),
    Inception("inception_4c", 512, 128, 128, 256, 24, 64, 64),
    Inception("inception_4d", 512, 112, 144, 288, 32, 64, 64),
    Inception("inception_4e", 528, 256, 160, 320, 32, 128, 128),
)
STAGE_5 = (
    Inception("inception_5a", 832, 256, 160, 320, 32, 128, 128),
    Inception("inception_5b", 832, 384, 192, 384, 48, 128, 128),
)


class CaffeGoogLeNet(nn.Module):
    """GoogLeNet for images [N, 3, 224, 224] in BGR, 0..255 minus the mean; returns logits [N, 1000]."""

    def __init__(self) -> None:
        super().__init__()
        self._add_conv("conv1/7x7_s2", 3, 64, kernel_size=7, stride=2)
        self._add_conv("conv2/3x3_reduce", 64, 64, kernel_size=1)
        self._add_conv("conv2/3x3", 64, 192, kernel_size=3)
        for widths in STAGE_3 + STAGE_4 + STAGE_5:
            self._add_inception(widths)
        self.add_module("loss3/classifier", nn.Linear(1024, 1000))

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        x = _norm(_pool(self._conv("conv1/7x7_s2", x)))
        x = self._conv("conv2/3x3", self._conv("conv2/3x3_reduce", x))
        x = _pool(_norm(x))
        for widths in STAGE_3:
            x = self._inception(widths.name, x)
        x = _pool(x)
        for widths in STAGE_4:
            x = self._inception(widths.name, x)
        x = _pool(x)
        for widths in STAGE_5:
            x = self._inception(widths.name, x)
        x = functional.dropout(x.mean(dim=(2, 3)), p=0.4, training=self.training)
        logits: Tensor = getattr(self, "loss3/classifier")(x)
        return logits

    def _inception(self, name: str, x: Tensor) -> Tensor:
        branches = (
            self._conv(f"{name}/1x1", x),
            self._conv(f"{name}/3x3", self._conv(f"{name}/3x3_reduce", x)),
            self._conv(f"{name}/5x5", self._conv(f"{name}/5x5_reduce", x)),
            self._conv(f"{name}/pool_proj", functional.max_pool2d(x, kernel_size=3, stride=1, padding=1)),
        )
        return torch.cat(branches, dim=1)

    def _conv(self, name: str, x: Tensor) -> Tensor:
        return functional.relu(getattr(self, name)(x))

    def _add_inception(self, widths: Inception) -> None:
        name, in_channels = widths.name, widths.in_channels
        self._add_conv(f"{name}/1x1", in_channels, widths.conv1x1, kernel_size=1)
        self._add_conv(f"{name}/3x3_reduce", in_channels, widths.reduce3x3, kernel_size=1)
        self._add_conv(f"{name}/3x3", widths.reduce3x3, widths.conv3x3, kernel_size=3)
        self._add_conv(f"{name}/5x5_reduce", in_channels, widths.reduce5x5, kernel_size=1)
        self._add_conv(f"{name}/5x5", widths.reduce5x5, widths.conv5x5, kernel_size=5)
        self._add_conv(f"{name}/pool_proj", in_channels, widths.pool_proj, kernel_size=1)

    def _add_conv(
        self, name: str, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1
    ) -> None:
        conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding=kernel_size // 2)
        nn.init.xavier_uniform_(conv.weight)
        self.add_module(name, conv)


def _pool(x: Tensor) -> Tensor:
    # Caffe rounds the size of a pooled map up.
    return functional.max_pool2d(x, kernel_size=3, stride=2, ceil_mode=True)


def _norm(x: Tensor) -> Tensor:
    """``functional.local_response_norm(x, size=5, alpha=1e-4, beta=0.75, k=1.0)``, several times as fast.

    That pools a fifth dimension and raises to a power, which takes a third of the whole network's time in ONNX
    Runtime. Across channels; Caffe and torch both divide alpha by the size of the window.
    """
    channels, size = x.shape[1], 5
    squares = functional.pad(x * x, (0, 0, 0, 0, size // 2, size // 2))
    near = [squares[:, start : start + channels] for start in range(size)]
    root = (1 + 1e-4 / size * sum(near[1:], near[0])).sqrt()
    return x / (root * root.sqrt())
