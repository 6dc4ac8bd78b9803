"""The networks of `architectures.py`: how each is built, and what it is called with.

None is in `tests/test_architectures.py`. Inputs are small, in batches of two. A package is imported by the networks
that need it alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

BATCH = 2
Inputs = Any
"""As :data:`tuckertree.measure.ExampleInputs`."""


@dataclass(frozen=True)
class Network:
    """A network of others.

    Attributes
    ----------
    make
        Builds it, with random weights.
    sample
        Draws one batch of inputs.
    macs
        Share of the multiply-accumulates that it is to be compressed to.
    targets
        What its training mode takes beside the inputs, for those that give their losses themselves.
    """

    make: Callable[[], nn.Module]
    sample: Callable[[], Inputs]
    macs: float = 0.7
    targets: Callable[[], Any] | None = None

    def build(self, seed: int) -> nn.Module:
        torch.manual_seed(seed)
        return self.make()

    def inputs(self, seed: int) -> Inputs:
        torch.manual_seed(seed)
        return self.sample()


def of(module: str, name: str, *args: Any, **options: Any) -> Callable[[], Any]:
    """A function that calls ``module.name``, imported when it is called."""
    return lambda: getattr(import_module(module), name)(*args, **options)


def noise(*shape: int) -> Callable[[], Tensor]:
    return lambda: torch.randn(BATCH, *shape)


def image(size: int, channels: int = 3) -> Callable[[], Tensor]:
    return noise(channels, size, size)


# torchvision -------------------------------------------------------------------------------------------------------


def torchvision(name: str, size: int = 64, **options: Any) -> Network:
    return Network(of("torchvision.models", name, weights=None, **options), image(size))


def video(name: str) -> Network:
    return Network(of("torchvision.models.video", name, weights=None), noise(3, 8, 48, 48))


def segmenter(name: str) -> Network:
    make = of("torchvision.models.segmentation", name, weights=None, weights_backbone=None, num_classes=5)
    return Network(make, image(64))


def boxes() -> list[dict[str, Tensor]]:
    corners = torch.tensor([[8.0, 8.0, 60.0, 60.0]])
    return [{"boxes": corners, "labels": torch.tensor([1])} for _ in range(BATCH)]


def detector(name: str, **options: Any) -> Network:
    make = of(
        "torchvision.models.detection", name, weights=None, weights_backbone=None, num_classes=5, **options
    )
    return Network(make, lambda: ([torch.rand(3, 96, 96) for _ in range(BATCH)],), targets=boxes)


SMALL = {"min_size": 96, "max_size": 96}
TORCHVISION = {
    "alexnet": torchvision("alexnet"),
    "vgg11_bn": torchvision("vgg11_bn", 32, num_classes=10),
    "squeezenet1_1": torchvision("squeezenet1_1"),
    "mnasnet0_5": torchvision("mnasnet0_5"),
    "mobilenet_v2": torchvision("mobilenet_v2"),
    "regnet_y_400mf": torchvision("regnet_y_400mf"),
    "resnet18": torchvision("resnet18"),
    "efficientnet_v2_s": torchvision("efficientnet_v2_s"),
    "maxvit_t": torchvision("maxvit_t", 224),
    "vision_transformer": Network(
        of(
            "torchvision.models",
            "VisionTransformer",
            image_size=64,
            patch_size=16,
            num_layers=4,
            num_heads=4,
            hidden_dim=192,
            mlp_dim=384,
        ),
        image(64),
    ),
    "mc3_18": video("mc3_18"),
    "s3d": Network(of("torchvision.models.video", "s3d", weights=None), noise(3, 16, 64, 64)),
    "fcn_resnet50": segmenter("fcn_resnet50"),
    "lraspp_mobilenet_v3_large": segmenter("lraspp_mobilenet_v3_large"),
    "raft_small": Network(
        of("torchvision.models.optical_flow", "raft_small", weights=None),
        lambda: (torch.rand(BATCH, 3, 128, 128), torch.rand(BATCH, 3, 128, 128)),
    ),
    "ssdlite320_mobilenet_v3_large": detector("ssdlite320_mobilenet_v3_large"),
    "retinanet_resnet50_fpn": detector("retinanet_resnet50_fpn", **SMALL),
    "fcos_resnet50_fpn": detector("fcos_resnet50_fpn", **SMALL),
    "fasterrcnn_mobilenet_v3_large_fpn": detector("fasterrcnn_mobilenet_v3_large_fpn", **SMALL),
}

# timm --------------------------------------------------------------------------------------------------------------

TIMM_SIZES = {
    "botnet26t_256": 256,
    "coatnet_nano_rw_224": 224,
    "convmixer_768_32": 64,
    "convnextv2_atto": 64,
    "cspresnet50": 64,
    "davit_tiny": 64,
    "dla46_c": 64,
    "dpn48b": 64,
    "edgenext_xx_small": 64,
    "efficientformer_l1": 224,
    "efficientvit_b0": 64,
    "ese_vovnet19b_dw": 64,
    "fastvit_t8": 64,
    "gernet_s": 64,
    "ghostnet_050": 64,
    "ghostnetv2_100": 64,
    "hrnet_w18_small": 64,
    "inception_next_atto": 64,
    "inception_v4": 96,
    "lambda_resnet26t": 64,
    "legacy_seresnet18": 64,
    "levit_128s": 224,
    "lcnet_050": 64,
    "mixnet_s": 64,
    "mobilenetv3_small_050": 64,
    "mobilenetv4_conv_small": 64,
    "mobileone_s0": 64,
    "mobilevit_xxs": 64,
    "nf_regnet_b0": 64,
    "nfnet_l0": 64,
    "poolformer_s12": 64,
    "pvt_v2_b0": 64,
    "regnetx_002": 64,
    "repghostnet_050": 64,
    "repvgg_a0": 64,
    "repvit_m1": 64,
    "res2net50_14w_8s": 64,
    "resnest14d": 64,
    "resnetv2_50x1_bit": 64,
    "rexnet_100": 64,
    "selecsls42b": 64,
    "sequencer2d_s": 224,
    "skresnet18": 64,
    "starnet_s1": 64,
    "tf_efficientnet_cc_b0_4e": 64,
    "visformer_tiny": 224,
    "vit_tiny_r_s16_p8_224": 224,
    "xcit_nano_12_p16_224": 64,
}


def timm(name: str, size: int, **options: Any) -> Network:
    return Network(of("timm", "create_model", name, pretrained=False, **options), image(size))


TIMM = {name: timm(name, size, num_classes=10) for name, size in TIMM_SIZES.items()}
TIMM["resnet26d, features alone"] = timm("resnet26d", 64, features_only=True)

# segmentation-models-pytorch ---------------------------------------------------------------------------------------


def smp(name: str, encoder: str) -> Network:
    make = of("segmentation_models_pytorch", name, encoder, encoder_weights=None, classes=3)
    return Network(make, image(64))


SMP = {
    "Unet, resnet18": smp("Unet", "resnet18"),
    "UnetPlusPlus, mobilenet_v2": smp("UnetPlusPlus", "mobilenet_v2"),
    "Linknet, resnet18": smp("Linknet", "resnet18"),
    "FPN, efficientnet-b0": smp("FPN", "efficientnet-b0"),
    "PSPNet, resnet18": smp("PSPNet", "resnet18"),
    "DeepLabV3Plus, resnet18": smp("DeepLabV3Plus", "resnet18"),
    "MAnet, resnet18": smp("MAnet", "resnet18"),
}

# ultralytics -------------------------------------------------------------------------------------------------------


def yolo(name: str, kind: str = "DetectionModel") -> Network:
    return Network(of("ultralytics.nn.tasks", kind, f"{name}.yaml", verbose=False), image(64))


YOLO = {
    "yolov3-tiny": yolo("yolov3-tiny"),
    "yolov5n": yolo("yolov5n"),
    "yolov8n": yolo("yolov8n"),
    "yolov8n-seg": yolo("yolov8n-seg", "SegmentationModel"),
    "yolov8n-pose": yolo("yolov8n-pose", "PoseModel"),
    "yolov10n": yolo("yolov10n"),
    "yolo11n": yolo("yolo11n"),
    "yolo11n-cls": yolo("yolo11n-cls", "ClassificationModel"),
    "yolo26n": yolo("yolo26n"),
}

# transformers ------------------------------------------------------------------------------------------------------


def hugging_face(kind: str, config: str, sample: Callable[[], Inputs], **options: Any) -> Network:
    def make() -> nn.Module:
        package = import_module("transformers")
        return getattr(package, kind)(getattr(package, config)(**options))

    return Network(make, sample)


def detr() -> nn.Module:
    package = import_module("transformers")
    backbone = package.ResNetConfig(
        embedding_size=32, hidden_sizes=[32, 64, 128, 256], depths=[1, 1, 1, 1], out_features=["stage4"]
    )
    config = package.DetrConfig(
        backbone_config=backbone,
        use_timm_backbone=False,
        use_pretrained_backbone=False,
        backbone=None,
        d_model=64,
        encoder_layers=2,
        decoder_layers=2,
        encoder_ffn_dim=128,
        decoder_ffn_dim=128,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        num_queries=10,
    )
    return package.DetrForObjectDetection(config)


class Speech(nn.Module):
    """An encoder-decoder that takes its two inputs in a row."""

    def __init__(self) -> None:
        super().__init__()
        package = import_module("transformers")
        sizes = {"d_model": 64, "vocab_size": 100, "max_source_positions": 50, "use_cache": False}
        layers = {f"{side}_{what}": n for side in ("encoder", "decoder") for what, n in WHISPER.items()}
        tokens = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1}
        self.model = package.WhisperModel(package.WhisperConfig(**sizes, **layers, **tokens))

    def forward(self, features: Tensor, tokens: Tensor) -> Any:
        return self.model(input_features=features, decoder_input_ids=tokens)


WHISPER = {"layers": 2, "attention_heads": 4, "ffn_dim": 128}
HUGGING_FACE = {
    "ConvNext": hugging_face("ConvNextForImageClassification", "ConvNextConfig", image(64)),
    "Segformer": hugging_face("SegformerForSemanticSegmentation", "SegformerConfig", image(64)),
    "ResNet": hugging_face("ResNetForImageClassification", "ResNetConfig", image(64)),
    "MobileNetV2": hugging_face("MobileNetV2ForImageClassification", "MobileNetV2Config", image(64)),
    "MobileViT": hugging_face("MobileViTForImageClassification", "MobileViTConfig", image(64)),
    "Swin2SR": hugging_face(
        "Swin2SRForImageSuperResolution",
        "Swin2SRConfig",
        image(32),
        depths=[2, 2],
        num_heads=[4, 4],
        embed_dim=60,
    ),
    "UperNet, ConvNext": Network(
        lambda: import_module("transformers").UperNetForSemanticSegmentation(
            import_module("transformers").UperNetConfig(
                backbone_config=import_module("transformers").ConvNextConfig(
                    hidden_sizes=[24, 48, 96, 192], out_features=["stage1", "stage2", "stage3", "stage4"]
                ),
                hidden_size=64,
                auxiliary_in_channels=96,
            )
        ),
        image(64),
    ),
    "DETR": Network(
        detr,
        lambda: {
            "pixel_values": torch.randn(BATCH, 3, 96, 96),
            "pixel_mask": torch.ones(BATCH, 96, 96, dtype=torch.long),
        },
    ),
    "Wav2Vec2": hugging_face(
        "Wav2Vec2Model",
        "Wav2Vec2Config",
        noise(8000),
        hidden_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=192,
        conv_dim=[128] * 7,
    ),
    "Whisper": Network(Speech, lambda: (torch.randn(BATCH, 80, 100), torch.randint(3, 100, (BATCH, 12)))),
    "SpeechT5 HiFi-GAN": hugging_face(
        "SpeechT5HifiGan",
        "SpeechT5HifiGanConfig",
        noise(20, 80),
        upsample_initial_channel=128,
        model_in_dim=80,
    ),
    "EnCodec": hugging_face("EncodecModel", "EncodecConfig", noise(1, 4800), num_filters=16),
}

# diffusers ---------------------------------------------------------------------------------------------------------

BLOCKS = {"block_out_channels": (32, 64), "norm_num_groups": 8, "layers_per_block": 1}


def steps() -> Tensor:
    return torch.randint(0, 1000, (BATCH,))


DIFFUSERS = {
    "UNet2D": Network(
        of(
            "diffusers",
            "UNet2DModel",
            sample_size=32,
            down_block_types=("DownBlock2D", "AttnDownBlock2D"),
            up_block_types=("AttnUpBlock2D", "UpBlock2D"),
            **BLOCKS,
        ),
        lambda: (torch.randn(BATCH, 3, 32, 32), steps()),
    ),
    "UNet2DCondition": Network(
        of(
            "diffusers",
            "UNet2DConditionModel",
            sample_size=16,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            cross_attention_dim=64,
            attention_head_dim=8,
            **BLOCKS,
        ),
        lambda: (torch.randn(BATCH, 4, 16, 16), steps(), torch.randn(BATCH, 7, 64)),
    ),
    "UNet1D": Network(
        of(
            "diffusers",
            "UNet1DModel",
            sample_size=256,
            in_channels=2,
            out_channels=2,
            extra_in_channels=16,
            block_out_channels=(32, 64, 64),
        ),
        lambda: (torch.randn(BATCH, 2, 256), steps()),
    ),
    "AutoencoderKL": Network(
        of(
            "diffusers",
            "AutoencoderKL",
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            **BLOCKS,
        ),
        image(32),
    ),
    "VQModel": Network(
        of(
            "diffusers",
            "VQModel",
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            num_vq_embeddings=64,
            **BLOCKS,
        ),
        image(32),
    ),
}

# MONAI -------------------------------------------------------------------------------------------------------------

VOLUME = noise(1, 32, 32, 32)
SPACE = {"spatial_dims": 3, "in_channels": 1, "out_channels": 2}


def monai(name: str, **options: Any) -> Network:
    return Network(of("monai.networks.nets", name, **options), VOLUME)


MONAI = {
    "UNet, 3-D": monai("UNet", channels=(16, 32, 64, 128), strides=(2, 2, 2), num_res_units=2, **SPACE),
    "SegResNet, 3-D": monai("SegResNet", init_filters=16, **SPACE),
    "VNet": monai("VNet", **SPACE),
    "DynUNet, 3-D": monai(
        "DynUNet",
        kernel_size=[3, 3, 3],
        strides=[1, 2, 2],
        upsample_kernel_size=[2, 2],
        filters=[16, 32, 64],
        **SPACE,
    ),
    "AttentionUnet, 3-D": monai("AttentionUnet", channels=(16, 32, 64), strides=(2, 2), **SPACE),
    "DenseNet121, 3-D": monai("DenseNet121", **SPACE),
}

# torchaudio and spandrel -------------------------------------------------------------------------------------------

TORCHAUDIO = {
    "Wav2Letter": Network(
        of("torchaudio.models", "Wav2Letter", input_type="mfcc", num_features=13), noise(13, 100)
    ),
    "Conv-TasNet": Network(of("torchaudio.models", "ConvTasNet", msk_num_hidden_feats=256), noise(1, 4000)),
    "DeepSpeech": Network(of("torchaudio.models", "DeepSpeech", 40, n_hidden=256), noise(1, 50, 40)),
    "HDemucs": Network(
        of("torchaudio.models", "HDemucs", ["drums", "vocals"], channels=16, depth=5, nfft=1024),
        noise(2, 16384),
    ),
}


def restorer(where: str, name: str, size: int = 24, **options: Any) -> Network:
    return Network(of(f"spandrel.architectures.{where}", name, **options), image(size))


SPANDREL = {
    "ESRGAN": restorer("ESRGAN.__arch.RRDB", "RRDBNet", num_blocks=2),
    "Compact": restorer("Compact.__arch.SRVGG", "SRVGGNetCompact", num_conv=8),
    "SPAN": restorer("SPAN.__arch.span", "SPAN", num_in_ch=3, num_out_ch=3),
    "NAFNet": restorer("NAFNet.__arch.NAFNet_arch", "NAFNet", 32, width=16),
}

NETWORKS: Mapping[str, Network] = {
    f"{package}: {name}": network
    for package, networks in {
        "torchvision": TORCHVISION,
        "timm": TIMM,
        "smp": SMP,
        "ultralytics": YOLO,
        "transformers": HUGGING_FACE,
        "diffusers": DIFFUSERS,
        "monai": MONAI,
        "torchaudio": TORCHAUDIO,
        "spandrel": SPANDREL,
    }.items()
    for name, network in networks.items()
}
