"""Images by the name or path of their source, as a network takes them."""

from tuckertree.tools.data.images import ImageSet, batches, open_calibration, open_images
from tuckertree.tools.data.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocessing
from tuckertree.tools.data.streams import ImageStream, open_training

__all__ = [
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "ImageSet",
    "ImageStream",
    "Preprocessing",
    "batches",
    "open_calibration",
    "open_images",
    "open_training",
]
