"""Tune a compressed network against the original: no labels, the original is the teacher."""

import torch

import tuckertree as tt
from tuckertree.tools.data import open_images
from tuckertree.tools.models import resolve

known = resolve("demo")
model, example = tt.build("demo"), known.example_inputs()
images = torch.stack(
    [image for image, _ in open_images("demo", known.preprocessing, split="train", limit=32)]
)

result = tt.compress(model, example, tt.Budget(params="4x"), calibration=images)
# So few images and steps show how it is done; a thousand images and five minutes are what pays.
tuned = tt.tune(result, model, images, steps=10)
print(tuned.tuning)
