"""A budget for the whole network, fitted to unlabelled images: what it keeps, beside the same budget without images."""

import torch

import tuckertree as tt
from tuckertree.tools.data import batches, open_images
from tuckertree.tools.models import resolve

known = resolve("demo")  # the packaged ResNet-20 and a sample of CIFAR-10
model, example = tt.build("demo"), known.example_inputs()
training = open_images("demo", known.preprocessing, split="train", limit=64)
test = open_images("demo", known.preprocessing, split="test", limit=200)
images = torch.stack([image for image, _ in training])  # no labels

budget = tt.Budget(params="2.5x")
fitted = tt.compress(model, example, budget, calibration=images)
blind = tt.compress(model, example, budget)
print(fitted)
for name, network in (("dense", model), ("fitted", fitted.model), ("from the weights alone", blind.model)):
    print(f"{name}: {tt.evaluate(network, batches(test, 100))}")
