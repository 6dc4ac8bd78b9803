"""In Python networks and images are no names: the message says what opens them."""

from pathlib import Path

import pytest
import torch

import tuckertree as tt

RULE = tt.Budget(params=0.5)


@pytest.fixture(scope="module")
def model():
    return torch.nn.Sequential(torch.nn.Conv2d(3, 16, 3), torch.nn.Conv2d(16, 16, 3), torch.nn.Flatten())


@pytest.mark.parametrize("named", ["demo", Path("demo")])
def test_images_by_name(model, named):
    example, plan = torch.zeros(1, 3, 8, 8), tt.plan(model, torch.zeros(1, 3, 8, 8), RULE)
    for use in (
        lambda: tt.compress(model, example, RULE, calibration=named),
        lambda: tt.compress(
            model, example, tt.Budget(max_drop=1), calibration=torch.zeros(8, 3, 8, 8), data=named
        ),
        lambda: tt.calibrate(model, plan, named),
        lambda: tt.sensitivity(model, example, calibration=named),
        lambda: tt.tune(model, model, named, steps=1),
        lambda: tt.evaluate(model, named),
    ):
        with pytest.raises(tt.UsageError, match="not by the name 'demo'; open_calibration and open_images"):
            use()


def test_a_network_by_name():
    for use in (tt.compress, tt.plan):
        with pytest.raises(tt.UsageError, match=r"'demo' is no ONNX file; .* tuckertree.build\('demo'\)"):
            use("demo", torch.zeros(1, 3, 32, 32), RULE)
