"""On a real network: what calibration is for."""

import torch

import tuckertree as tt
from tuckertree.calibration import calibrate
from tuckertree.measure import evaluate
from tuckertree.tools.data import batches, open_images
from tuckertree.tools.models import build, resolve


def test_the_packaged_network_keeps_far_more_of_its_accuracy() -> None:
    preprocessing = resolve("demo").preprocessing
    images = torch.cat([x for x, _ in batches(open_images("demo", preprocessing, split="train"), 64)])
    test = open_images("demo", preprocessing, split="test", limit=500)
    model = build("demo")
    plain = tt.compress(model, images[:1], energy=0.8)
    calibrated = calibrate(model, plain.plan, images)
    before, after = (evaluate(each, batches(test, 100)).top1 for each in (plain.model, calibrated))
    assert after > before + 20
    assert after > 70
