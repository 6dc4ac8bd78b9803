"""Training and fine-tuning, on Lightning, which is imported when a run starts."""

from tuckertree.tools.training.engine import finetune, train
from tuckertree.tools.training.optimisation import gentle_rate
from tuckertree.tools.training.outcome import Outcome
from tuckertree.tools.training.settings import Settings

__all__ = ["Outcome", "Settings", "finetune", "gentle_rate", "train"]
