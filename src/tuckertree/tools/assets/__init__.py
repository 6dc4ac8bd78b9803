"""The files packaged with tuckertree; README.md beside this file gives their sources and licences."""

from pathlib import Path

SAMPLE_IMAGES = Path(__file__).with_name("cifar10_sample.npz")
DEMO_WEIGHTS = Path(__file__).with_name("cifar10_resnet20_fp16.safetensors")
