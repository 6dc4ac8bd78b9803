"""Small networks that hold one difficulty each, for tests."""

import torch
from torch import nn
from torch.nn.utils import parametrizations


def small_cnn() -> nn.Sequential:
    """A first convolution, an ordinary, a pointwise, a depthwise and a linear layer, with a bias each."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 24, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(24, 24, 3, padding=1, groups=24),
        nn.Conv2d(24, 32, 1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(32, 10),
    ).eval()


class SharedModule(nn.Module):
    """One convolution used twice, under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 16, 3, padding=1)
        self.a = nn.Conv2d(16, 16, 3, padding=1)
        self.b = self.a

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.b(self.a(self.first(x)).relu())


class TiedWeights(nn.Module):
    """Two convolutions with one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(8, 8, 3, padding=1)
        self.b = nn.Conv2d(8, 8, 3, padding=1)
        self.b.weight = self.a.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.b(self.a(x))


class StandardizedConv2d(nn.Conv2d):
    """A convolution that does something to its weight first."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self._conv_forward(x, self.weight - self.weight.mean(), self.bias)


class RenamedConv2d(nn.Conv2d):
    """A convolution in nothing but name."""


class Unreached(nn.Module):
    """A layer that the forward pass does not call."""

    def __init__(self) -> None:
        super().__init__()
        self.used = nn.Conv2d(3, 32, 3)
        self.head = nn.Conv2d(3, 32, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.used(x)


class UNet(nn.Module):
    """Two levels down and up again, by both usual kinds of transposed convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.down1, self.down2, self.bottom = self._block(3, 16), self._block(16, 32), self._block(32, 64)
        self.up2 = nn.ConvTranspose2d(64, 32, 2, stride=2)
        self.join2 = self._block(64, 32)
        self.up1 = nn.ConvTranspose2d(32, 16, 3, stride=2, padding=1, output_padding=1)
        self.join1 = self._block(32, 16)
        self.head = nn.Conv2d(16, 2, 1)

    @staticmethod
    def _block(inputs: int, outputs: int) -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, padding=1, padding_mode="reflect"),
            nn.ReLU(),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        level1 = self.down1(x)
        level2 = self.down2(nn.functional.max_pool2d(level1, 2))
        bottom = self.bottom(nn.functional.max_pool2d(level2, 2))
        up2 = self.join2(torch.cat([self.up2(bottom), level2], 1))
        up1 = self.join1(torch.cat([self.up1(up2), level1], 1))
        return self.head(up1)


def hooked() -> nn.Conv2d:
    """A convolution with a forward hook."""
    layer = nn.Conv2d(3, 16, 3)
    layer.register_forward_hook(lambda module, inputs, output: output * 2)
    return layer


def parametrized() -> nn.Module:
    """A convolution under torch's weight norm."""
    return parametrizations.weight_norm(nn.Conv2d(3, 16, 3))
