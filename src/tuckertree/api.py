"""What ``import tuckertree`` offers."""

from pathlib import Path

from torch import nn

from tuckertree._base.errors import TuckertreeError, UnreachableTargetError, UsageError
from tuckertree._base.version import __version__
from tuckertree.calibration import calibrate
from tuckertree.compression import (
    AccuracyNotKeptError,
    CompressionResult,
    DistanceByLayer,
    OnnxNetwork,
    Sensitivity,
    compress,
    distance_by_layer,
    plan,
    sensitivity,
    trade_off_curve,
    tune,
)
from tuckertree.core.layers import Chain, densify, factorize
from tuckertree.io import load_folder, local_folder, push_to_hub
from tuckertree.io.export import export
from tuckertree.measure import evaluate
from tuckertree.network.surgery import apply, to_dense
from tuckertree.planning import Budget, Energy, ErrorBound, Layer, LayerPlan, Plan, Ranks
from tuckertree.tools.models import build
from tuckertree.tools.training import Outcome, Settings, finetune, train


def load(path: str | Path, *, into: nn.Module | None = None, fused: bool = False) -> nn.Module:
    """Load a compressed model from a folder that :meth:`CompressionResult.save` wrote, on the disk or on the hub.

    Nothing in the folder is unpickled or executed, and no decomposition is made.

    Parameters
    ----------
    path
        The folder; or ``hf-hub:owner/name``, ``hf-hub:owner/name@revision``, one that :func:`push_to_hub` has put on the
        Hugging Face hub. It is fetched once for each commit.
    into
        The dense model it was made from, where that is not one that :func:`build` knows by name; it gives the
        architecture alone and is not changed.
    fused
        Whether to give the network as it was measured for a latency, to be run; by default, and in a folder that
        was made for none, in its factors, to be trained on. See :meth:`CompressionResult.fused`.

    Returns
    -------
    torch.nn.Module
        On the CPU, in evaluation mode, in the types it was saved in.

    Raises
    ------
    TuckertreeError
        If the folder is not one of ours, corrupt, of a newer format, does not fit the architecture, or cannot be fetched.

    Examples
    --------
    >>> import tempfile, torch, tuckertree as tt
    >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 32, 3), torch.nn.ReLU(), torch.nn.Conv2d(32, 64, 3))
    >>> result = tt.compress(model, torch.zeros(1, 3, 16, 16), tt.Budget(params=0.5))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     loaded = tt.load(result.save(f"{folder}/small"), into=model)
    >>> all(torch.equal(a, b) for a, b in zip(loaded.parameters(), result.model.parameters()))
    True
    """
    return load_folder(local_folder(path), build, into, fused=fused)[0]


__all__ = [
    "AccuracyNotKeptError",
    "Budget",
    "Chain",
    "CompressionResult",
    "DistanceByLayer",
    "Energy",
    "ErrorBound",
    "Layer",
    "LayerPlan",
    "OnnxNetwork",
    "Outcome",
    "Plan",
    "Ranks",
    "Sensitivity",
    "Settings",
    "TuckertreeError",
    "UnreachableTargetError",
    "UsageError",
    "__version__",
    "apply",
    "build",
    "calibrate",
    "compress",
    "densify",
    "distance_by_layer",
    "evaluate",
    "export",
    "factorize",
    "finetune",
    "load",
    "plan",
    "push_to_hub",
    "sensitivity",
    "to_dense",
    "trade_off_curve",
    "train",
    "tune",
]
