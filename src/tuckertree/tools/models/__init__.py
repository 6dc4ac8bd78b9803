"""Networks by name, and their weights."""

from pathlib import Path

from torch import nn

from tuckertree.tools.assets import DEMO_WEIGHTS
from tuckertree.tools.models.architecture import Architecture
from tuckertree.tools.models.registry import advice_for, names_a_scheme, resolve
from tuckertree.tools.models.weights import load_weights

__all__ = ["Architecture", "advice_for", "build", "load_weights", "names_a_scheme", "resolve"]


def build(name: str, *, weights: str | Path | None = None) -> nn.Module:
    """Build a network from its name.

    Parameters
    ----------
    name
        As :func:`resolve` takes it. ``demo`` is ``cifar10:resnet20`` with the packaged weights, unless others
        are given.
    weights
        A safetensors file, or a state dict of ``torch.save``; without one the weights are random.

    Returns
    -------
    nn.Module
        In evaluation mode. Its attribute ``architecture_name`` is the name, from which it can be built again.

    Raises
    ------
    UsageError
        If the name or an option of it is not known.
    TuckertreeError
        If a package is not installed, or the weights do not fit or cannot be read.

    Examples
    --------
    >>> import tuckertree as tt
    >>> model = tt.build("cifar10:resnet56")  # with random weights
    >>> sum(p.numel() for p in model.parameters()), model.architecture_name
    (853018, 'cifar10:resnet56')
    """
    if name == "demo" and weights is None:
        weights = DEMO_WEIGHTS
    architecture = resolve(name)
    model = architecture.build()
    if weights is not None:
        load_weights(model, Path(weights))
    # Past nn.Module.__setattr__, which is typed for parameters and modules alone.
    vars(model)["architecture_name"] = architecture.name
    model.eval()
    return model
