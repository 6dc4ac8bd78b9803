"""The networks that have a page: what they are, and how the command line names them."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Network:
    """A network that has a page."""

    page: str
    title: str
    about: str
    model: str
    names: tuple[str, ...]
    score: str = "top-1 %"
    weights: str = ""
    images: str = ""
    command: str = ""


CIFAR = "{} CIFAR-10, the 10,000 test images."
PHOTOGRAPHS = "{} Scored on 500 photographs with labels of ImageNet, in two halves: read it as a drop."
OTHERS = (
    "{} The ONNX file of the package, compressed as it is. It was made for other pictures than those it was fitted to and looked at "
    "with, so there is no accuracy: the score is the relative error of the outputs on 32 photographs that took no part, less is better."
)
ERROR = "output error"
NETWORKS = (
    Network(
        "resnet20",
        "ResNet-20",
        CIFAR.format("The ResNet of He et al. (2016) for 32x32 images."),
        "cifar10:resnet20",
        ("ResNet-20", "cifar10:resnet20"),
        weights=" --weights W.safetensors",
    ),
    Network(
        "resnet56",
        "ResNet-56",
        CIFAR.format("The same with 56 layers, no wider."),
        "cifar10:resnet56",
        ("ResNet-56", "cifar10:resnet56"),
        weights=" --weights W.safetensors",
    ),
    Network(
        "vgg19",
        "VGG-19",
        CIFAR.format("VGG-19 with BatchNorm, for 32x32 images."),
        "cifar10:vgg19_bn",
        ("VGG-19-BN",),
        weights=" --weights W.safetensors",
    ),
    Network(
        "googlenet",
        "GoogLeNet",
        PHOTOGRAPHS.format("With the weights of BVLC's Caffe model."),
        "caffe:googlenet",
        ("GoogLeNet", "caffe:googlenet"),
        weights=" --weights W.safetensors",
    ),
    Network(
        "efficientnet-lite0",
        "EfficientNet-Lite0",
        PHOTOGRAPHS.format("A compact network: depthwise convolutions, inverted residuals."),
        "timm:tf_efficientnet_lite0",
        ("EfficientNet-Lite0",),
        weights=" --weights W.safetensors",
        images=" --mean 0.5,0.5,0.5 --std 0.5,0.5,0.5",
    ),
    Network(
        "yolox-nano",
        "YOLOX-nano",
        "A detector (Megvii, Apache-2.0), the ONNX file as it is. Scored on images of COCO val2017 that took no part.",
        "yolox_nano.onnx",
        ("YOLOX-nano", "yolox_nano.onnx"),
        "mAP",
        images=" --mean 0,0,0 --std 1,1,1 --scale 1 --channels bgr",
    ),
    Network(
        "vdsr",
        "VDSR",
        "Super-resolution: twenty convolutions on the luminance ([page](../super-resolution.md)). Scored on Set5.",
        "none of a known name",
        ("VDSR",),
        "PSNR dB",
        command="python benchmarks/tuning.py VDSR --budgets macs=2 --data DATA ZOO --output docs/results",
    ),
    Network(
        "open-nsfw",
        "open_nsfw",
        OTHERS.format("A ResNet-50 of Yahoo."),
        "open_nsfw.onnx",
        ("open_nsfw (ResNet-50)",),
        ERROR,
    ),
    Network(
        "ddddocr",
        "ddddocr",
        OTHERS.format("Detector (YOLOX) and recogniser of a package for captchas."),
        "common_det.onnx",
        ("ddddocr detector (YOLOX)", "ddddocr recogniser"),
        ERROR,
    ),
    Network(
        "pp-ocr",
        "PP-OCR",
        OTHERS.format("Detector and recogniser of PP-OCRv4."),
        "ch_PP-OCRv4_det_infer.onnx",
        ("PP-OCRv4 detector", "PP-OCRv4 recogniser"),
        ERROR,
    ),
)
