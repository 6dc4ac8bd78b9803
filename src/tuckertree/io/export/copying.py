"""The 8-bit ONNX file of a saved folder, given out after it was run beside the network it belongs to."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from tuckertree._base.atomic import atomic_files
from tuckertree._base.errors import TuckertreeError
from tuckertree.io.export.exporting import Exported, check_target, difference_to
from tuckertree.network.onnx import read_onnx
from tuckertree.runtimes import get_runtime

_TOLERANCE = 1.0


def export_int8(
    source: Path,
    model: nn.Module,
    path: str | Path,
    example: Tensor,
    *,
    tolerance: float | None = None,
    overwrite: bool = False,
) -> Exported:
    """Copy an ONNX file in 8 bits, and see that it is one of a network.

    Parameters
    ----------
    source
        The file.
    model
        The network in single precision, in evaluation mode.
    path
        Where to write.
    example
        An input; random numbers of its shape are what is compared.
    tolerance
        Largest difference allowed, relative to the largest output; by default 1: random numbers are
        no images, and only far from the network is surely another one.
    overwrite
        Replace a file that is there.

    Raises
    ------
    TuckertreeError
        If the file cannot be read, gives outputs of another form, or cannot be written.
    """
    path = Path(path)
    to = check_target(path, "onnx", overwrite=overwrite)
    if read_onnx(source).external:
        raise TuckertreeError(f"{source} has weights in files of their own, as none of ours has; refused")
    allowed = _TOLERANCE if tolerance is None else tolerance
    x = torch.randn(example.shape, generator=torch.Generator().manual_seed(0)).to(example.dtype)
    with atomic_files(path, overwrite=overwrite) as new:
        new.write_bytes(source.read_bytes())
        difference = difference_to(model, get_runtime("onnxruntime").open(new).run, [x])
        if not difference <= allowed:
            raise TuckertreeError(
                f"{source} differs from the network by {difference:.2g} of the largest output, {allowed:.2g} is allowed "
                "(--tolerance); nothing was written"
            )
        size = new.stat().st_size
    return Exported(path, to, size, difference, allowed, ((tuple(x.shape),),))
