"""DenseNet-40 for 32x32 images.

Huang, Liu, van der Maaten, Weinberger, "Densely Connected Convolutional Networks", CVPR 2017, section 3: the
basic network (no bottleneck, no compression) of depth 40 and growth rate 12; 1.0 M parameters.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

DEPTH = 40
GROWTH = 12
STEM = 16


class CifarDenseNet40(nn.Module):
    """DenseNet-40 (k = 12) for images [N, 3, 32, 32]; returns logits [N, num_classes]."""

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        layers = (DEPTH - 4) // 3
        grown = layers * GROWTH
        self.conv1 = _conv(3, STEM, kernel_size=3)
        self.block1 = _block(STEM, layers)
        self.transition1 = Transition(STEM + grown)
        self.block2 = _block(STEM + grown, layers)
        self.transition2 = Transition(STEM + 2 * grown)
        self.block3 = _block(STEM + 2 * grown, layers)
        self.bn = nn.BatchNorm2d(STEM + 3 * grown)
        self.linear = nn.Linear(STEM + 3 * grown, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        x = self.transition1(self.block1(self.conv1(x)))
        x = self.transition2(self.block2(x))
        x = functional.relu(self.bn(self.block3(x)))
        logits: Tensor = self.linear(x.mean(dim=(2, 3)))
        return logits


class DenseLayer(nn.Module):
    """BatchNorm, ReLU and a 3x3 convolution whose output is appended to the input."""

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(in_channels)
        self.conv = _conv(in_channels, GROWTH, kernel_size=3)

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, C, H, W] to [N, C + 12, H, W]."""
        return torch.cat([x, self.conv(functional.relu(self.bn(x)))], dim=1)


class Transition(nn.Module):
    """BatchNorm, ReLU, a 1x1 convolution of equal width, and average pooling by 2."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(channels)
        self.conv = _conv(channels, channels, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, C, H, W] to [N, C, H / 2, W / 2]."""
        return functional.avg_pool2d(self.conv(functional.relu(self.bn(x))), kernel_size=2)


def _block(in_channels: int, layers: int) -> nn.Sequential:
    return nn.Sequential(*(DenseLayer(in_channels + number * GROWTH) for number in range(layers)))


def _conv(in_channels: int, out_channels: int, kernel_size: int) -> nn.Conv2d:
    conv = nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2, bias=False)
    nn.init.kaiming_normal_(conv.weight)
    return conv
