"""Training and fine-tuning, on Lightning, which is imported when a run starts."""

from tuckertree.tools.settings import Settings
from tuckertree.tools.training.engine import finetune, train
from tuckertree.tools.training.optimisation import default_finetune_lr
from tuckertree.tools.training.outcome import Outcome

__all__ = ["Outcome", "Settings", "default_finetune_lr", "finetune", "train"]
