"""Settings: plain data, and nothing impossible."""

import json

import pytest

from tuckertree._base.errors import UsageError
from tuckertree.tools.training import Settings


def test_settings_are_plain_data():
    settings = Settings(3, lr=1, clip=2.0, ema=0.99, augment="cutout")
    assert Settings.from_json(json.loads(json.dumps(settings.to_json()))) == settings


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"epochs": 0}, "epochs must be at least 1, not 0"),
        ({"epochs": 2.5}, "epochs must be of type int, not 2.5"),
        ({"epochs": True}, "epochs must be of type int"),
        ({"lr": float("nan")}, "lr must be a positive number"),
        ({"lr": "fast"}, "lr must be of type float"),
        ({"optimizer": "adam"}, "optimizer must be one of sgd, adamw, not 'adam'"),
        ({"schedule": "step"}, "onecycle, cosine"),
        ({"precision": "16"}, "32, bf16"),
        ({"augment": "mixup"}, "flip-crop, cutout, imagenet, none"),
        ({"strategy": "deepspeed"}, "auto, ddp, ddp_spawn, fsdp"),
        ({"distill": 1.1}, r"distill must be in \[0, 1\]"),
        ({"temperature": 0}, "temperature must be a positive number"),
        ({"validation": 1}, r"validation must be in \[0, 1\)"),
        ({"label_smoothing": -0.1}, "label_smoothing"),
        ({"weight_decay": -1.0}, "weight_decay must be zero or more"),
        ({"clip": 0.0}, "clip must be a positive number"),
        ({"ema": 1.0}, r"ema must be in \(0, 1\)"),
        ({"limit_train": 0}, "limit_train must be at least 1"),
        ({"seed": -1}, "seed must be at least 0"),
        ({"admm_rho": 0.0}, "admm_rho must be a positive number"),
        ({"admm_every": 0}, "admm_every must be at least 1"),
        ({"devices": 3}, "batch_size 128 must be a multiple of the 3 devices"),
        ({"learning_rate": 1.0}, "unknown setting 'learning_rate'; there are epochs, batch_size"),
    ],
)
def test_what_is_impossible_is_refused_by_name(wrong, message):
    with pytest.raises(UsageError, match=message):
        Settings.from_json({"epochs": 1, **wrong})


def test_epochs_have_no_default():
    with pytest.raises(UsageError, match="lack epochs"):
        Settings.from_json({})
