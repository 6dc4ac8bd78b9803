"""A plan is data: make it, change it, apply it."""

from dataclasses import replace

import torch

import tuckertree as tt

model = tt.build("demo")
image = torch.zeros(1, 3, 32, 32)

result = tt.compress(model, image, tt.ErrorBound(0.4), exclude="layer1.*")
plan = result.plan
print(plan.dumps())

# Give one layer ranks of your own; apply() follows the plan without a search.
layers = tuple(
    replace(layer, ranks=(32, 48, 32)) if layer.name == "layer3.1.conv1" else layer for layer in plan.layers
)
edited = tt.apply(model, replace(plan, layers=layers))
print(edited.get_submodule("layer3.1.conv1"))

# The same by name patterns, for all layers.
by_hand = tt.Ranks({"layer3.*": (24, 40, 24), "layer2.*": 0.8})
print(tt.compress(model, image, by_hand))
