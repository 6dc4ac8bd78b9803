import re

import pytest
import torch

from tuckertree._base.errors import UsageError
from tuckertree.tools.models import build, resolve


@pytest.mark.parametrize(
    ("name", "outputs"),
    [
        ("cifar10:resnet20", 10),
        ("cifar10:densenet40?num_classes=7", 7),
        ("caffe:googlenet", 1000),
        ("torchvision:resnet18?num_classes=3", 3),
        ("torchvision:googlenet", 1000),
        ("torchvision:inception_v3?aux_logits=0&num_classes=4", 4),
        ("timm:resnet18.a1_in1k?num_classes=5", 5),
        ("timm:mobilenetv3_small_050", 1000),
    ],
)
def test_builds_and_takes_its_example(name, outputs) -> None:
    model = build(name)
    with torch.inference_mode():
        assert model(resolve(name).example_inputs()).shape == (1, outputs)
    assert not model.training
    assert model.architecture_name == name


def test_video_network_takes_a_clip() -> None:
    assert resolve("torchvision:r3d_18").example_inputs().shape == (1, 3, 16, 112, 112)


def test_example_is_the_same_each_time_and_leaves_the_global_generator_alone() -> None:
    state = torch.get_rng_state()
    first, second = (resolve("demo").example_inputs() for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(torch.get_rng_state(), state)


def test_demo_is_named_after_its_architecture() -> None:
    assert resolve("demo").name == "cifar10:resnet20"
    assert build("demo").architecture_name == "cifar10:resnet20"


@pytest.mark.parametrize(
    "name",
    [
        "torchvision:fcn_resnet50",
        "torchvision:deeplabv3_mobilenet_v3_large?aux_loss=1",
        "torchvision:ssdlite320_mobilenet_v3_large",
    ],
)
def test_backbones_are_not_downloaded(name, monkeypatch) -> None:
    def refuse(*_, **__):
        raise AssertionError("a download was tried")

    monkeypatch.setattr("torch.hub.load_state_dict_from_url", refuse)
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", refuse)
    build(name)


@pytest.mark.parametrize(
    ("name", "size", "resize", "interpolation"),
    [
        ("torchvision:resnet18", (224, 224), 256, "bilinear"),
        ("torchvision:inception_v3", (299, 299), 342, "bilinear"),
        ("torchvision:vit_b_16", (224, 224), 256, "bilinear"),
        ("timm:resnet50.a1_in1k", (224, 224), 235, "bicubic"),
        ("caffe:googlenet", (224, 224), 224, "bilinear"),
        ("cifar10:vgg19_bn", (32, 32), None, "bilinear"),
    ],
)
def test_preprocessing_is_the_published_one(name, size, resize, interpolation) -> None:
    found = resolve(name).preprocessing
    assert (found.size, found.resize, found.interpolation) == (size, resize, interpolation)


def test_caffe_takes_an_image_of_its_size_as_it_is() -> None:
    # Enlarged to 256 and cropped, such images cost GoogLeNet ten points of accuracy, which a test on a
    # hundred images cannot tell from chance.
    pixels = torch.randint(0, 256, (3, 224, 224), dtype=torch.uint8)
    assert torch.equal(resolve("caffe:googlenet").preprocessing.fit_pixels(pixels), pixels)


def test_every_torchvision_name_resolves() -> None:
    from torchvision.models import list_models

    for name in list_models():
        assert resolve(f"torchvision:{name}").name == f"torchvision:{name}"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet20", "unknown model 'resnet20'; give 'demo' or a name that begins with cifar10:, caffe:"),
        ("os:system", "unknown model 'os:system'; give 'demo'"),
        ("cifar10:resnet21", "unknown model 'cifar10:resnet21'; known are densenet40, resnet110, resnet20"),
        ("caffe:alexnet", "unknown model 'caffe:alexnet'; known are googlenet"),
        ("torchvision:resnet19", "similar are resnet18"),
        ("torchvision:zzzzzzzz", "known names is similar"),
        ("timm:resnet51", "similar are resnet"),
        ("timm:resnet50.no_such_tag", "unknown model 'timm:resnet50.no_such_tag'"),
        ("timm:hf-hub:somebody/model", "unknown model"),
        ("timm:hf_hub:somebody/model", "unknown model"),
        ("timm:local-dir:/tmp/model", "unknown model"),
        ("cifar10:resnet20?depth=3", "'cifar10:resnet20' has no option 'depth'; it has num_classes"),
        ("caffe:googlenet?num_classes=3", "'caffe:googlenet' has no options"),
        ("torchvision:resnet18?weights=1", "has no option 'weights'; it has num_classes"),
        (
            "torchvision:googlenet?aux_logits=2",
            "option 'aux_logits' of 'torchvision:googlenet' must be 0 or 1",
        ),
        ("timm:resnet18?pretrained=1", "has no option 'pretrained'"),
        ("cifar10:resnet20?num_classes=ten", "must be like num_classes=10"),
        ("cifar10:resnet20?num_classes", "must be like num_classes=10"),
        ("cifar10:resnet20?num_classes=9999999", "at most 1000000"),
        ("cifar10:resnet20?num_classes=0", "must be at least 1"),
    ],
)
def test_refuses_what_it_does_not_know(name, message) -> None:
    with pytest.raises(UsageError, match=re.escape(message)) as caught:
        resolve(name)
    assert "\n" not in str(caught.value)
