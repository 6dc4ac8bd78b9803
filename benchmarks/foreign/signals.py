"""Volumes, sound and restoration: MONAI, torchaudio, spandrel."""

from __future__ import annotations

from typing import Any

from foreign.network import Network, image, noise, of

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
