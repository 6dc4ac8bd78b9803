"""Training and fine-tuning, on Lightning."""

from tuckertree.training.settings import Settings

__all__ = ["Settings"]
