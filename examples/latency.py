"""A target of measured time instead of a count of operations."""

import torch
from torch import nn

import tuckertree as tt

torch.manual_seed(0)
model = nn.Sequential(
    nn.Conv2d(3, 64, 3, padding=1),
    nn.ReLU(),
    nn.Conv2d(64, 128, 3, stride=2, padding=1),
    nn.ReLU(),
    nn.Conv2d(128, 128, 3, padding=1),
    nn.AdaptiveAvgPool2d(1),
    nn.Flatten(),
    nn.Linear(128, 10),
).eval()

# best_effort keeps the nearest plan where no plan is fast enough; without it there would be an error that names it.
rule = tt.Budget(latency="1.5x", runtime="onnxruntime", threads=1, best_effort=True)
result = tt.compress(model, torch.zeros(1, 3, 32, 32), rule)
print(result)
fast = result.fused()  # as it was measured: run and export this, train on result.model
