"""Networks and images that tuning is tested with."""

import torch
from torch import Tensor, nn

import tuckertree as tt
from tests.calibration.cases import generator
from tuckertree.calibration.tuning import Way

IMAGES = torch.rand(160, 3, 12, 12, generator=generator())
FROZEN, WITH_NORMS = Way(False, 2e-3), Way(True, 2e-3)


class WithNorms(nn.Module):
    """Two convolutions with norms, a residual, a dropout, a head; what it returns is chosen."""

    def __init__(self, returned=lambda x: x) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.norm1 = nn.Conv2d(3, 24, 3, padding=1, bias=False), nn.BatchNorm2d(24)
        self.body, self.norm2 = nn.Conv2d(24, 24, 3, padding=1, bias=False), nn.BatchNorm2d(24)
        self.drop, self.head = nn.Dropout(0.5), nn.Linear(24, 10)
        self.returned = returned
        with torch.no_grad():
            for momentum in (1.0, 0.1):  # statistics are those of the images
                self.norm1.momentum = self.norm2.momentum = momentum
                self.train()(IMAGES)
            self.eval()

    def forward(self, x: Tensor) -> object:
        x = self.norm1(self.first(x)).relu_()
        x = (x + self.norm2(self.body(x))).relu_()
        return self.returned(self.head(self.drop(x.mean((2, 3)))))


class Undifferentiated(WithNorms):
    """Its forward pass keeps no graph."""

    @torch.no_grad()
    def forward(self, x: Tensor) -> object:
        return super().forward(x)


def ranks(model, **options):
    return tt.compress(model, IMAGES[:1], tt.Ranks({"*": 4}), **options)


def bits(model):
    return {name: x.clone() for name, x in model.state_dict().items()}


def differing(before, after):
    return {name for name in before if not torch.equal(before[name], after[name])}
