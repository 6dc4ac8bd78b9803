"""MODEL on the command line: a name, a saved folder or a factory, opened into a network and its input."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePath

import torch
from torch import Tensor, nn

from tuckertree._base.errors import TuckertreeError, UsageError
from tuckertree._base.names import TrustedName, UntrustedName, warn_of_namesake
from tuckertree.io import ask_for_model, is_on_hub, load_folder, local_folder, read_config
from tuckertree.io.folder import int8_file
from tuckertree.io.recognition import CHECKPOINT, EXPORTED, SAFETENSORS, TORCHSCRIPT, kind_of
from tuckertree.latency import is_measured
from tuckertree.planning import Plan
from tuckertree.runtimes import usable_device
from tuckertree.tools.data import Preprocessing
from tuckertree.tools.models import advice_for, build, load_weights, names_a_scheme, resolve

_IN_A_FILE = re.compile(r"(?P<module>[\w./]+)\.py(:(?P<function>\w+))?")
"""A factory by the file that it is in, which is not how it is named."""
Sizes = tuple[int, ...] | Mapping[str, tuple[int, ...]] | None
"""Size of the one input without the batch, or of each by keyword."""


@dataclass(frozen=True)
class OpenModel:
    """A network ready to be looked at.

    Attributes
    ----------
    model
        In evaluation mode.
    example_inputs
        One input of the right shape, ``[1, 3, H, W]`` for images; or several, by keyword.
    preprocessing
        How images become inputs.
    plan
        For a compressed network, the plan that made it.
    fused
        Whether the model is as it was measured for a latency.
    int8
        The ONNX file in 8 bits that was measured, of which the model is what was quantized; not read yet.
    """

    model: nn.Module
    example_inputs: Tensor | dict[str, Tensor]
    preprocessing: Preprocessing
    plan: Plan | None = None
    fused: bool = False
    int8: Path | None = None

    @property
    def example(self) -> Tensor:
        """The one positional input.

        Raises
        ------
        UsageError
            If the inputs go by keyword.
        """
        if isinstance(self.example_inputs, dict):
            raise UsageError(
                "inputs by keyword (--input-size NAME:3,32,32) are for inspect and compress; this takes one without a name"
            )
        return self.example_inputs


def open_model(
    source: TrustedName | UntrustedName | Path,
    *,
    weights: Path | None = None,
    architecture: TrustedName | None = None,
    input_size: Sizes = None,
    device: str = "cpu",
    fused: bool = False,
) -> OpenModel:
    """Open what the user named, or a network of a known scheme that a file names.

    Parameters
    ----------
    source
        ``demo``, ``cifar10:resnet20``, ``torchvision:resnet18``, ``timm:resnet50``, ``caffe:googlenet``, a
        folder saved by tuckertree, ``hf-hub:owner/name``, one on the Hugging Face hub, or ``package.module:factory``, a
        function without arguments that returns a model. Folders and factories are for the user to name; a name from a
        file is looked up among the schemes. A path is a folder.
    weights
        A safetensors file, or a state dict of ``torch.save``, with the weights of the (dense) network.
    architecture
        For a saved folder that does not name its architecture: a name or a factory that builds it.
    input_size
        Channels, height and width (or any shape without the batch), where the source does not know it; a folder
        remembers that of the example it was made with. Images are resized to it. With a mapping of sizes the model is
        called by keyword.
    device
        A torch device.
    fused
        Whether a folder that was made for a latency is opened as it was measured; otherwise in its factors.

    Raises
    ------
    TuckertreeError
        If the source is unknown, its weights do not fit, or its input size is not known.
    """
    if isinstance(source, Path) or (isinstance(source, TrustedName) and names_a_folder(source)):
        opened = _open_folder(source, weights, architecture, input_size, fused=fused)
    elif architecture is not None:
        raise UsageError(f"--model belongs to a saved folder; {source} is not one")
    elif str(source).lower().endswith(".onnx"):
        raise UsageError(
            f"{source} is an ONNX file; inspect, compress, compare, evaluate and bench take those, this command does not"
        )
    else:
        if isinstance(source, TrustedName):
            _refuse_file(source)
        opened = _open_dense(source, weights, input_size)
    inputs = opened.example_inputs
    model = opened.model.to(usable_device(device))
    model.eval()
    return replace(
        opened,
        model=model,
        example_inputs={name: x.to(device) for name, x in inputs.items()}
        if isinstance(inputs, dict)
        else inputs.to(device),
    )


def is_untrained(source: TrustedName | UntrustedName, weights: Path | None) -> bool:
    """Whether a network has random weights: one known by its name, for which no file is given."""
    return weights is None and names_a_scheme(str(source)) and str(source) != "demo"


def names_a_folder(source: TrustedName | Path) -> bool:
    """Whether what the user names is a saved folder, on the disk or on the hub; a name from a file is never one.

    What is named like a known network is that network: a folder of the same name is named by its path, ``./demo``.
    """
    return is_on_hub(source) or (not _is_known(source) and Path(source).is_dir())


def _is_known(source: TrustedName | Path) -> bool:
    return isinstance(source, TrustedName) and names_a_scheme(source)


def _open_folder(
    named: TrustedName | Path,
    weights: Path | None,
    architecture: TrustedName | None,
    input_size: Sizes,
    *,
    fused: bool,
) -> OpenModel:
    if weights is not None:
        raise UsageError(f"{named} has weights of its own; --weights belongs to a dense model")
    path = local_folder(named)
    config = read_config(path)
    source = architecture or config.architecture
    if source is None:
        raise ask_for_model(path)
    try:
        dense = _open_dense(source, None, input_size, config.input_size)
    except UsageError as error:
        if isinstance(source, TrustedName):
            raise
        raise ask_for_model(path, error) from error
    model, config = load_folder(path, build, into=dense.model, fused=fused)
    return replace(
        dense,
        model=model,
        plan=config.plan,
        fused=fused and is_measured(config.plan),
        int8=int8_file(path, config) if fused else None,
    )


def _open_dense(
    source: TrustedName | UntrustedName, weights: Path | None, input_size: Sizes, remembered: Sizes = None
) -> OpenModel:
    size = input_size or remembered
    if isinstance(source, TrustedName) and source.is_factory and not names_a_scheme(source):
        model = _call_factory(source)
        if weights is not None:
            load_weights(model, weights)
        if size is None:
            raise UsageError(f"give --input-size: {source} does not say what it takes")
        return OpenModel(model, _zeros(size), _resized(Preprocessing((1, 1)), size))
    if isinstance(source, TrustedName) and (advice := _by_file(source)):
        raise UsageError(f"{source} is no name of a network; {advice}")
    known = resolve(str(source))
    model = build(str(source), weights=weights)
    usual = known.example_inputs()
    if size is None or (input_size is None and size == tuple(usual.shape[1:])):
        return OpenModel(model, usual, known.preprocessing)
    return OpenModel(model, _zeros(size), _resized(known.preprocessing, size))


def _refuse_file(source: TrustedName) -> None:
    """Refuse a file where a network is to be named, and say what to do with its kind."""
    if _is_known(source):
        warn_of_namesake(source)
        return
    path = Path(source)
    if not path.exists() or _by_file(source):
        return
    kind = kind_of(path)
    if kind == TORCHSCRIPT:
        what, advice = "a TorchScript program, whose layers are fixed", "the model it was made from"
    elif kind == EXPORTED:
        what, advice = "an exported program, whose layers are fixed", "the model it was made from"
    elif kind in (SAFETENSORS, CHECKPOINT):
        what, advice = "a file of weights, which does not say what network they are of", "the network"
    else:
        what, advice = "no network that can be read", "a network"
    raise UsageError(
        f"{path} is {what}; give {advice} as MODEL, by its name or as package.module:factory, and weights by --weights"
    )


def _call_factory(source: TrustedName) -> nn.Module:
    try:
        model = source.call()
    except ModuleNotFoundError as error:
        missing = f"{source.partition(':')[0]}.".startswith(f"{error.name}.")  # not a package that it needs
        advice = f"; {_by_file(source) or advice_for(source)}" if missing else ""
        raise TuckertreeError(f"{source} cannot be built: {error}{advice}") from error
    except Exception as error:
        raise TuckertreeError(f"{source} cannot be built: {type(error).__name__}: {error}") from error
    if not isinstance(model, nn.Module):
        raise TuckertreeError(f"{source} returned a {type(model).__name__}, not a torch module")
    return model


def _by_file(source: str) -> str:
    """What to give instead of ``folder/module.py:function``, or ''."""
    named = _IN_A_FILE.fullmatch(source)
    if named is None:
        return ""
    path, function = PurePath(named["module"]), named["function"] or "FUNCTION, one that returns the model"
    below = not path.is_absolute() and ".." not in path.parts
    module = ".".join(path.parts) if below else path.name
    return f"name the module, not its file{'' if below else ', in its folder'}: {module}:{function}"


def _zeros(size: tuple[int, ...] | Mapping[str, tuple[int, ...]]) -> Tensor | dict[str, Tensor]:
    if isinstance(size, Mapping):
        return {name: torch.zeros(1, *each) for name, each in size.items()}
    return torch.zeros(1, *size)


def _resized(known: Preprocessing, size: tuple[int, ...] | Mapping[str, tuple[int, ...]]) -> Preprocessing:
    """Preprocessing for inputs of another size: what is cut off at the sides stays the same share."""
    one = next(iter(size.values())) if isinstance(size, Mapping) else size
    height, width = (1, *one)[-2:]
    margin = (known.resize or 0) / min(known.size)
    return replace(known, size=(height, width), resize=round(max(margin, 1) * min(height, width)))
