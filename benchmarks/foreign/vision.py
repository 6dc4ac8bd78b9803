"""Classifiers, detectors and segmenters: torchvision, timm, segmentation-models-pytorch, ultralytics."""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

from foreign.network import BATCH, Inputs, Network, image, of


def torchvision(name: str, size: int = 64, **options: Any) -> Network:
    return Network(of("torchvision.models", name, weights=None, **options), image(size))


def boxes() -> list[dict[str, Tensor]]:
    corners = torch.tensor([[8.0, 8.0, 60.0, 60.0]])
    return [{"boxes": corners, "labels": torch.tensor([1])} for _ in range(BATCH)]


def detector(name: str, **options: Any) -> Network:
    make = of(
        "torchvision.models.detection", name, weights=None, weights_backbone=None, num_classes=5, **options
    )
    return Network(make, pictures, targets=boxes)


def pictures() -> Inputs:
    """A list of pictures, as detectors take them."""
    return ([torch.rand(3, 96, 96) for _ in range(BATCH)],)


def one_stage(name: str) -> Network:
    """RetinaNet or FCOS on a small backbone."""

    def make() -> nn.Module:
        package = import_module("torchvision.models.detection")
        body = package.backbone_utils.mobilenet_backbone("mobilenet_v3_small", weights=None, fpn=True)
        sizes = tuple((size,) if name == "FCOS" else (size, 2 * size) for size in (16, 32, 64))
        anchors = package.anchor_utils.AnchorGenerator(
            sizes, ((1.0,) if name == "FCOS" else (0.5, 1.0, 2.0),) * 3
        )
        return getattr(package, name)(body, num_classes=5, anchor_generator=anchors, min_size=96, max_size=96)

    return Network(make, pictures, targets=boxes)


TORCHVISION = {
    "squeezenet1_1": torchvision("squeezenet1_1"),
    "mnasnet0_5": torchvision("mnasnet0_5"),
    "mobilenet_v2": torchvision("mobilenet_v2"),
    "regnet_y_400mf": torchvision("regnet_y_400mf"),
    "resnet18": torchvision("resnet18"),
    "maxvit": Network(
        of(
            "torchvision.models",
            "MaxVit",
            input_size=(64, 64),
            stem_channels=16,
            partition_size=4,
            block_channels=[16, 32],
            block_layers=[1, 1],
            head_dim=8,
            stochastic_depth_prob=0.0,
        ),
        image(64),
    ),
    "vision transformer": Network(
        of(
            "torchvision.models",
            "VisionTransformer",
            image_size=64,
            patch_size=16,
            num_layers=2,
            num_heads=4,
            hidden_dim=192,
            mlp_dim=384,
        ),
        image(64),
    ),
    "lraspp_mobilenet_v3_large": Network(
        of(
            "torchvision.models.segmentation",
            "lraspp_mobilenet_v3_large",
            weights=None,
            weights_backbone=None,
        ),
        image(64),
    ),
    "raft_small": Network(
        of("torchvision.models.optical_flow", "raft_small", weights=None),
        lambda: (torch.rand(BATCH, 3, 128, 128), torch.rand(BATCH, 3, 128, 128)),
    ),
    "ssdlite320_mobilenet_v3_large": detector("ssdlite320_mobilenet_v3_large"),
    "RetinaNet, mobilenet_v3_small": one_stage("RetinaNet"),
    "FCOS, mobilenet_v3_small": one_stage("FCOS"),
}


TIMM_SIZES = {
    "convnextv2_atto": 64,
    "dla46_c": 64,
    "edgenext_xx_small": 64,
    "efficientvit_b0": 64,
    "ese_vovnet19b_dw": 64,
    "fastvit_t8": 64,
    "gernet_s": 64,
    "ghostnet_050": 64,
    "ghostnetv2_100": 64,
    "hrnet_w18_small": 64,
    "inception_next_atto": 64,
    "lcnet_050": 64,
    "levit_128s": 224,
    "mixnet_s": 64,
    "mobilenetv3_small_050": 64,
    "mobilenetv4_conv_small": 64,
    "mobileone_s0": 64,
    "mobilevit_xxs": 64,
    "nf_regnet_b0": 64,
    "pvt_v2_b0": 64,
    "regnetx_002": 64,
    "repghostnet_050": 64,
    "repvgg_a0": 64,
    "repvit_m1": 64,
    "rexnet_100": 64,
    "starnet_s1": 64,
    "tf_efficientnet_cc_b0_4e": 64,
    "vit_tiny_r_s16_p8_224": 224,
    "xcit_nano_12_p16_224": 64,
}
NARROW = {"channels": (24, 48, 96, 192), "num_classes": 10}


def timm(name: str, size: int, **options: Any) -> Network:
    return Network(of("timm", "create_model", name, pretrained=False, **options), image(size))


TIMM = {name: timm(name, size, num_classes=10) for name, size in TIMM_SIZES.items()}
# Their own kinds of convolution stay dense, so less is within reach.
TIMM["nf_regnet_b0"] = replace(TIMM["nf_regnet_b0"], macs=0.95)
TIMM["tf_efficientnet_cc_b0_4e"] = replace(TIMM["tf_efficientnet_cc_b0_4e"], macs=0.8)
TIMM |= {
    f"{name}, narrow": timm(name, size, **NARROW)
    for name, size in {
        "skresnet18": 64,
        "resnest14d": 64,
        "res2net50_14w_8s": 64,
    }.items()
}
TIMM |= {
    "ResNetV2, weights standardised": Network(
        of(
            "timm.models.resnetv2", "ResNetV2", layers=(1,) * 4, channels=(128, 256, 256, 512), num_classes=10
        ),
        image(64),
    ),
    "ConvMixer": Network(
        of("timm.models.convmixer", "ConvMixer", dim=128, depth=4, num_classes=10), image(64)
    ),
    "PoolFormer": Network(
        of("timm.models.metaformer", "MetaFormer", depths=(1,) * 4, dims=(32, 64, 80, 128), num_classes=10),
        image(64),
    ),
    "resnet10t, features alone": timm("resnet10t", 64, features_only=True, channels=(24, 48, 96, 192)),
}


def smp(name: str, encoder: str) -> Network:
    make = of("segmentation_models_pytorch", name, encoder, encoder_weights=None, classes=3)
    return Network(make, image(64))


SMP = {
    "Unet, mobilenet_v2": smp("Unet", "mobilenet_v2"),
    "UnetPlusPlus, regnetx_002": smp("UnetPlusPlus", "timm-regnetx_002"),
    "Linknet, mobileone_s0": smp("Linknet", "mobileone_s0"),
    "FPN, efficientnet-b0": smp("FPN", "efficientnet-b0"),
    "PSPNet, mobilenet_v2": smp("PSPNet", "mobilenet_v2"),
    "DeepLabV3Plus, mobilenet_v2": smp("DeepLabV3Plus", "mobilenet_v2"),
    "Segformer, mit_b0": smp("Segformer", "mit_b0"),
}


def yolo(name: str, kind: str = "DetectionModel") -> Network:
    return Network(of("ultralytics.nn.tasks", kind, f"{name}.yaml", verbose=False), image(64))


YOLO = {
    "yolov5n": yolo("yolov5n"),
    "yolov8n": yolo("yolov8n"),
    "yolov8n-seg": yolo("yolov8n-seg", "SegmentationModel"),
    "yolov8n-pose": yolo("yolov8n-pose", "PoseModel"),
    "yolov10n": yolo("yolov10n"),
    "yolo11n": yolo("yolo11n"),
    "yolo11n-cls": yolo("yolo11n-cls", "ClassificationModel"),
    "yolo26n": yolo("yolo26n"),
}
