"""Networks of other people: compress, run, save, load, the same output, and no warnings (they are errors)."""

from collections.abc import Mapping, Sequence

import pytest
import torch

import tuckertree as tt
from tests import networks
from tuckertree.planning import DENSE
from tuckertree.tools.models import resolve

pytest.importorskip("torchvision")
pytest.importorskip("timm")

NETWORKS = [
    "cifar10:densenet40",
    "cifar10:vgg19_bn",
    "caffe:googlenet",
    "timm:resnet50",
    "timm:tf_efficientnet_b0",
    "torchvision:convnext_tiny",
    "torchvision:deeplabv3_resnet50",
    "torchvision:densenet121",
    "torchvision:efficientnet_b0",
    "torchvision:googlenet",
    "torchvision:inception_v3",
    "torchvision:mobilenet_v3_large",
    "torchvision:r3d_18",
    "torchvision:resnext50_32x4d",
    "torchvision:shufflenet_v2_x1_0",
    "torchvision:swin_t",
]


def tensors(output):
    """All tensors in whatever a model returns."""
    if isinstance(output, torch.Tensor):
        return [output]
    parts = output.values() if isinstance(output, Mapping) else output if isinstance(output, Sequence) else []
    return [tensor for part in parts for tensor in tensors(part)]


def round_trip(model, x, folder, into=None):
    """Compress, save and load, and compare the outputs; gives the plan."""
    result = tt.compress(model, x, energy=0.6)
    result.save(folder)
    with torch.no_grad():
        ours, loaded = tensors(result.model(x)), tensors(tt.load(folder, into=into)(x))
    assert len(ours) == len(loaded) > 0
    assert all(torch.equal(a, b) for a, b in zip(ours, loaded, strict=True))
    assert all(tensor.isfinite().all() for tensor in ours)
    assert result.plan.parameters[1] < result.plan.parameters[0]
    assert result.plan.macs[1] < result.plan.macs[0]
    return result.plan


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_by_name(name, tmp_path):
    torch.manual_seed(0)
    x = torch.randn_like(resolve(name).example_inputs())
    plan = round_trip(tt.build(name), x, tmp_path / "out")
    # What is dense is so for a reason, and most of what can be compressed is.
    assert all(layer.reason for layer in plan.layers if layer.method == DENSE)
    assert len(plan.compressed) >= len(plan.layers) / 2


def test_a_u_net_with_transposed_convolutions(tmp_path):
    model, x = networks.UNet().eval(), torch.randn(1, 3, 64, 64)
    plan = round_trip(model, x, tmp_path / "out", into=networks.UNet())
    assert {layer.kind for layer in plan.compressed} == {"conv2d", "conv_transpose2d"}
