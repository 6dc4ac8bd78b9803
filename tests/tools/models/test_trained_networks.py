import pytest
import torch
from torch import nn

from tuckertree.tools.data import ImageSet, batches, open_images
from tuckertree.tools.models import build, resolve


def top1(model: nn.Module, images: ImageSet) -> float:
    with torch.inference_mode():
        right = sum(int((model(x).argmax(1) == labels).sum()) for x, labels in batches(images, 50))
    return 100 * right / len(images)


def test_demo_on_the_packaged_sample() -> None:
    assert top1(build("demo"), open_images("demo", resolve("demo").preprocessing)) >= 90


# The accuracy of each file on all of its images, and a margin for a part of them: three standard deviations.
@pytest.mark.parametrize(
    ("name", "weights", "source", "limit", "accuracy", "margin"),
    [
        ("cifar10:resnet20", "cifar10_resnet20", "cifar10", 1000, 91.73, 2.7),
        ("cifar10:resnet32", "cifar10_resnet32", "cifar10", 1000, 92.63, 2.5),
        ("cifar10:resnet56", "cifar10_resnet56", "cifar10", 500, 93.39, 3.4),
        ("cifar10:resnet20", "own_cifar10_resnet20_fp16", "cifar10", 1000, 92.72, 2.5),
        ("cifar10:vgg19_bn", "own_cifar10_vgg19_bn_fp16", "cifar10", 500, 93.37, 3.4),
        ("caffe:googlenet", "imagenet_googlenet_bvlc", "imagenet-like", 100, 71.6, 13.6),
    ],
)
def test_accuracy_on_real_images(real_data, name, weights, source, limit, accuracy, margin) -> None:
    model = build(name, weights=real_data / "models" / f"{weights}.safetensors")
    images = open_images(real_data / source, resolve(name).preprocessing, split="test", limit=limit)
    assert top1(model, images) == pytest.approx(accuracy, abs=margin)
