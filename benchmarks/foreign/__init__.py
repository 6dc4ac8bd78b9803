"""The networks of `architectures.py`: how each is built, and what it is called with.

None is in `tests/tools/models/test_architectures.py`. All have random weights; inputs are small, in batches of two. A package is
imported by the networks that need it alone.
"""

from collections.abc import Mapping

from foreign.hubs import DIFFUSERS, HUGGING_FACE
from foreign.network import SHARE, Network
from foreign.signals import MONAI, SPANDREL, TORCHAUDIO
from foreign.vision import SMP, TIMM, TORCHVISION, YOLO

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

__all__ = ["NETWORKS", "SHARE", "Network"]
