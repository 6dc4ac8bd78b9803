"""The methods that a caller asks for, from the plan to the folder and the exported file."""

import numpy as np
import pytest
import torch

import tuckertree as tt
from tests import networks
from tuckertree._base.errors import UnreachableTargetError, UsageError
from tuckertree.core.layers import METHODS

IMAGE = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
IMAGES = torch.randn(48, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def methods_in(plan):
    return {layer.method for layer in plan.layers}


@pytest.mark.parametrize("methods", [("ht2", "svd"), ("tucker2",), ("spatial",), ("cp",), ("cp", "svd")])
def test_only_methods_that_were_asked_for_are_in_the_plan(methods):
    result = tt.compress(networks.small_cnn(), IMAGE, tt.Budget(macs=0.7), methods=methods)
    assert methods_in(result.plan) <= {*methods, "dense"}
    assert result.plan.macs[1] <= 0.7 * result.plan.macs[0]


def test_the_methods_of_today_are_those_asked_for_by_nobody():
    model = networks.small_cnn()
    plans = [
        tt.compress(model, IMAGE, tt.Budget(params=0.5), **options).plan
        for options in (
            {},
            {"methods": METHODS},
            {"methods": ["svd", "depthwise", "ht2", "spatial", "tucker2"]},
        )
    ]
    assert plans[0].dumps() == plans[1].dumps()
    assert plans[2].optimality.loss == pytest.approx(plans[0].optimality.loss)


@pytest.mark.parametrize(
    ("rule", "methods", "message"),
    [
        (
            tt.Budget(macs=0.5),
            ("cp", "tt"),
            "unknown method 'tt'; known: ht2, tucker2, spatial, svd, depthwise, cp",
        ),
        (tt.Budget(macs=0.5), "cp", "methods are several names"),
        (tt.Budget(macs=0.5), (), "methods are several names"),
        (tt.Energy(0.9), ("cp",), "methods belong to a budget"),
        (tt.ErrorBound(0.1), ("ht2",), "methods belong to a budget"),
    ],
)
def test_methods_that_cannot_be_are_refused_in_one_line(rule, methods, message):
    with pytest.raises(UsageError, match=message) as refused:
        tt.compress(networks.small_cnn(), IMAGE, rule, methods=methods)
    assert "\n" not in str(refused.value)


def test_a_layer_that_no_method_is_for_stays_dense_and_says_so():
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.Conv2d(8, 8, 1)).eval()
    plan = tt.compress(model, IMAGE, tt.Budget(macs=0.9), methods=("cp",)).plan
    assert plan.layers[1].reason == "budget: none of the methods cp is for it"
    with pytest.raises(UnreachableTargetError):
        tt.compress(model[2:], IMAGE[:, :1].expand(-1, 8, -1, -1), tt.Budget(macs=0.9), methods=("cp",))


@pytest.mark.parametrize("objective", ["outputs", "sensitivity", "moments", "weight"])
def test_cp_is_calibrated_saved_loaded_multiplied_out_and_exported(objective, tmp_path):
    model = networks.small_cnn()
    result = tt.compress(
        model, IMAGE, tt.Budget(macs=0.6), methods=("cp",), calibration=IMAGES, objective=objective
    )
    assert methods_in(result.plan) == {"cp", "dense"}
    x = IMAGES[:4]
    with torch.no_grad():
        expected = result.model(x)
    result.save(tmp_path / "saved")
    with torch.no_grad():
        assert torch.equal(tt.load(tmp_path / "saved", into=model)(x), expected)
        torch.testing.assert_close(tt.to_dense(result.model)(x), expected, rtol=1e-4, atol=1e-5)
    pytest.importorskip("onnxruntime")
    from tuckertree.io.export import export

    export(result.model, tmp_path / "a.onnx", IMAGE)
    import onnxruntime

    session = onnxruntime.InferenceSession(tmp_path / "a.onnx")
    (found,) = session.run(None, {session.get_inputs()[0].name: IMAGE.numpy()})
    with torch.no_grad():
        np.testing.assert_allclose(found, result.model(IMAGE).numpy(), rtol=1e-3, atol=1e-4)


def test_calibrated_cp_is_nearer_to_the_outputs_than_without_images():
    model, x = networks.small_cnn(), IMAGES[40:]
    distances = []
    for images in (None, IMAGES[:40]):
        result = tt.compress(model, IMAGE, tt.Budget(macs=0.5), methods=("cp",), calibration=images)
        with torch.no_grad():
            distances.append(float((result.model(x) - model(x)).norm()))
    assert distances[1] < distances[0]


@pytest.mark.parametrize("rule", [tt.Budget(macs=0.5), tt.Energy(0.9)])
def test_a_rule_in_the_place_of_the_example_is_named(rule):
    with pytest.raises(UsageError, match="example inputs come before the rule"):
        tt.compress(networks.small_cnn(), rule)
