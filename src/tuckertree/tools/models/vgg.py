"""VGG-19 with batch normalisation for 32x32 images.

Simonyan, Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition", ICLR 2015,
configuration E; for small images the last pooling and the three large linear layers are replaced by a global
average and one linear layer, as is usual.
"""

from torch import Tensor, nn

STAGES = ((64, 64), (128, 128), (256,) * 4, (512,) * 4, (512,) * 4)


class CifarVGG19(nn.Module):
    """VGG-19-BN for images [N, 3, 32, 32]; returns logits [N, num_classes]."""

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        self.feature = _features()
        self.classifier = nn.Linear(STAGES[-1][-1], num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        logits: Tensor = self.classifier(self.feature(x).mean(dim=(2, 3)))
        return logits


def _features() -> nn.Sequential:
    """Return 16 times convolution, BatchNorm and ReLU, with a max-pool between the five stages."""
    layers: list[nn.Module] = []
    in_channels = 3
    for number, stage in enumerate(STAGES):
        if number:
            layers.append(nn.MaxPool2d(kernel_size=2))
        for width in stage:
            layers += [_conv3x3(in_channels, width), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
            in_channels = width
    return nn.Sequential(*layers)


def _conv3x3(in_channels: int, out_channels: int) -> nn.Conv2d:
    conv = nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    return conv
