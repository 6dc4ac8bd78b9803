import pytest
import torch
from torch import nn
from torch.nn import functional

from tuckertree.tools.models import build, resolve
from tuckertree.tools.models.googlenet import _norm
from tuckertree.tools.models.resnet import PaddedShortcut


@pytest.mark.parametrize(
    ("name", "parameters", "convolutions"),
    [
        # He et al. 2016, table 6: 0.27, 0.46, 0.85 and 1.7 M; Huang et al. 2017, table 2: 1.0 M.
        ("cifar10:resnet20", 269_722, 19),
        ("cifar10:resnet32", 464_154, 31),
        ("cifar10:resnet56", 853_018, 55),
        ("cifar10:resnet110", 1_727_962, 109),
        # 20,040,522 is the usual figure; the convolutions here have no biases, 5,504 fewer.
        ("cifar10:vgg19_bn", 20_040_522 - 5_504, 16),
        ("cifar10:densenet40", 1_019_722, 39),
        ("caffe:googlenet", 6_998_552, 57),
    ],
)
def test_size_is_the_published_one(name, parameters, convolutions) -> None:
    model = resolve(name).build()
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters
    assert sum(isinstance(module, nn.Conv2d) for module in model.modules()) == convolutions


def test_padded_shortcut_keeps_the_values_in_the_middle_channels() -> None:
    x = torch.randn(2, 4, 6, 6)
    y = PaddedShortcut(4, 8, stride=2)(x)
    assert torch.equal(y[:, 2:6], x[:, :, ::2, ::2])
    assert not y[:, :2].any()
    assert not y[:, 6:].any()


def test_googlenet_keeps_the_names_of_caffe_and_can_be_traced() -> None:
    model = build("caffe:googlenet")
    names = [name for name, module in model.named_modules() if isinstance(module, nn.Conv2d)]
    assert names[:3] == ["conv1/7x7_s2", "conv2/3x3_reduce", "conv2/3x3"]
    assert model.get_submodule("inception_3a/pool_proj").out_channels == 32
    example = resolve("caffe:googlenet").example_inputs()
    with torch.inference_mode():
        torch.testing.assert_close(torch.fx.symbolic_trace(model)(example), model(example))


@pytest.mark.parametrize("channels", [1, 4, 64])
def test_the_response_normalisation_of_googlenet_is_that_of_torch(channels) -> None:
    x = 100 * torch.randn(2, channels, 3, 5)
    torch.testing.assert_close(_norm(x), functional.local_response_norm(x, 5, alpha=1e-4, beta=0.75, k=1.0))
