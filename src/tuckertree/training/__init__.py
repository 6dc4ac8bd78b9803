"""Training and fine-tuning, on Lightning, which is imported when a run starts."""

from tuckertree.training.engine import finetune, train
from tuckertree.training.optimisation import gentle_rate
from tuckertree.training.outcome import Outcome
from tuckertree.training.settings import Settings

__all__ = ["Outcome", "Settings", "finetune", "gentle_rate", "train"]
