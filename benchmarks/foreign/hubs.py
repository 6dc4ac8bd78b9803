"""Networks from configs: transformers and diffusers."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

from foreign.network import BATCH, Inputs, Network, image, noise, of


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
        layerdrop=0.0,
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
