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
SHARE = 0.6
"""Budget of multiply-accumulates, where it can be reached."""
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
    macs: float = SHARE
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

# timm --------------------------------------------------------------------------------------------------------------

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
TIMM |= {
    f"{name}, narrow": timm(name, size, **NARROW)
    for name, size in {
        "skresnet18": 64,
        "resnest14d": 64,
        "res2net50_14w_8s": 64,
    }.items()
}
TIMM |= {
    "resnetv2_50x1_bit, narrow": timm(
        "resnetv2_50x1_bit", 64, layers=(1, 1, 1, 1), channels=(128, 256, 256, 512), num_classes=10
    ),
    "ConvMixer": Network(
        of("timm.models.convmixer", "ConvMixer", dim=128, depth=4, num_classes=10), image(64)
    ),
    "PoolFormer": timm("poolformer_s12", 64, dims=(32, 64, 80, 128), num_classes=10),
    "resnet10t, features alone": timm("resnet10t", 64, features_only=True, channels=(24, 48, 96, 192)),
}

# segmentation-models-pytorch ---------------------------------------------------------------------------------------


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

# ultralytics -------------------------------------------------------------------------------------------------------


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

# transformers ------------------------------------------------------------------------------------------------------


def hugging_face(kind: str, config: str, sample: Callable[[], Inputs], **options: Any) -> Network:
    def make() -> nn.Module:
        package = import_module("transformers")
        return getattr(package, kind)(getattr(package, config)(**options))

    return Network(make, sample)


def detr() -> nn.Module:
    package = import_module("transformers")
    backbone = package.ResNetConfig(**RESNET, out_features=["stage4"])
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


RESNET = {"embedding_size": 32, "hidden_sizes": [32, 64, 128, 256], "depths": [1, 1, 1, 1]}
WHISPER = {"layers": 2, "attention_heads": 4, "ffn_dim": 128}
HUGGING_FACE = {
    "ConvNext": hugging_face(
        "ConvNextForImageClassification", "ConvNextConfig", image(64), hidden_sizes=[24, 48, 96, 192]
    ),
    "Segformer": hugging_face("SegformerForSemanticSegmentation", "SegformerConfig", image(64)),
    "ResNet": hugging_face("ResNetForImageClassification", "ResNetConfig", image(64), **RESNET),
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
            extra_in_channels=64,
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
    "SegResNet, 3-D": monai("SegResNet", init_filters=8, **SPACE),
    "DynUNet, 3-D": monai(
        "DynUNet",
        kernel_size=[3, 3, 3],
        strides=[1, 2, 2],
        upsample_kernel_size=[2, 2],
        filters=[16, 32, 64],
        **SPACE,
    ),
    "AttentionUnet, 3-D": monai("AttentionUnet", channels=(16, 32, 64), strides=(2, 2), **SPACE),
    "DenseNet, 3-D": monai("DenseNet", init_features=32, growth_rate=16, block_config=(2, 2, 2), **SPACE),
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
    "ESRGAN": restorer("ESRGAN.__arch.RRDB", "RRDBNet", num_blocks=2, num_filters=32),
    "Compact": restorer("Compact.__arch.SRVGG", "SRVGGNetCompact", num_conv=8),
    "SPAN": restorer("SPAN.__arch.span", "SPAN", num_in_ch=3, num_out_ch=3),
    "NAFNet": restorer(
        "NAFNet.__arch.NAFNet_arch", "NAFNet", 32, width=16, enc_blk_nums=[1, 1], dec_blk_nums=[1, 1]
    ),
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
