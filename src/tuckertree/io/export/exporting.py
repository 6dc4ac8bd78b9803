"""One way for all formats: convert, write, read back, compare with PyTorch, and only then keep the file."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from pathlib import Path

import torch
from torch import Tensor, nn

from tuckertree._base.atomic import atomic_files, check_free_file
from tuckertree._base.errors import TuckertreeError, UsageError, first_line
from tuckertree.calibration import images_for_int8, rebalance_for_int8
from tuckertree.io.export.mixed import INT8_TOLERANCE, Int8Layers
from tuckertree.io.export.quantization import Sample, layer_names, parted, quantize
from tuckertree.measure import ExampleInputs, copy_for_inference
from tuckertree.measure import run as run_once
from tuckertree.measure.forward import describe
from tuckertree.runtimes import Dynamic, formats, get_runtime
from tuckertree.runtimes.onnx_model import traceable
from tuckertree.runtimes.runtime import reference_outputs

_TOLERANCES = {torch.float16: 1e-2, torch.bfloat16: 5e-2, torch.float64: 1e-9}
Compute = Callable[[Sequence[Tensor]], list[Tensor]]


@dataclass(frozen=True)
class Exported:
    """A file that was written and found to compute what the model does.

    Attributes
    ----------
    path
        The file; OpenVINO's weights lie in a ``.bin`` beside it.
    to
        Its format.
    size
        Bytes, with what lies beside it.
    difference
        Largest difference to PyTorch's outputs, relative to the largest of them, over all inputs compared.
    tolerance
        What it was allowed to be.
    compared
        Shapes of the inputs it was compared on.
    unquantized
        For a quantized file the difference before it was, on the same inputs.
    int8
        Of a quantized file, which layers are in 8 bits and what that costs; the tolerance is then of its distance.
    """

    path: Path
    to: str
    size: int
    difference: float
    tolerance: float
    compared: tuple[tuple[tuple[int, ...], ...], ...]
    unquantized: float | None = None
    int8: Int8Layers | None = None


def export(
    model: nn.Module,
    path: str | Path,
    example_inputs: ExampleInputs,
    *,
    to: str | None = None,
    dynamic: Dynamic = "batch",
    calibration: Iterable[Tensor | Sequence[Tensor]] | None = None,
    tolerance: float | None = None,
    overwrite: bool = False,
) -> Exported:
    """Write a network to a file that needs no tuckertree, and make sure that the file computes the same.

    The file is written and read back by its own runtime (:func:`~tuckertree.runtimes.formats`) and compared with
    the model on the example inputs, on random inputs of their shape and, where sizes are free, on other sizes.
    What was compared is what is kept; if it differs, nothing is written.

    Parameters
    ----------
    model
        On any device, in single, half or double precision; exported on the CPU, in evaluation mode. Not changed.
    path
        Where to write.
    example_inputs
        One tensor or a sequence of tensors, batch first.
    to
        ``onnx``, ``pt2``, ``openvino``, or the format of a registered runtime; by default what the ending says.
    dynamic
        Sizes that stay free: ``"none"``, ``"batch"``, or ``"size"`` for the batch and all spatial sizes.
    calibration
        Batches of inputs to quantize an ONNX file by, to 8 bits: tensors, or sequences of them for several inputs. Chains are
        written with factors that lose little by it (:func:`~tuckertree.calibration.rebalance_for_int8`). The file is
        compared before it is quantized. Layers that lose most by it stay in single precision, the fewest with
        which the outputs keep the tolerance: rounding to 8 bits does change them, and only labelled data say what that costs.
    tolerance
        Largest difference allowed, relative to the largest output: by default 1e-4 in single precision. In 8 bits the relative
        distance of the outputs from those in single precision, on the last of the calibration inputs, which are held out:
        by default 0.1; infinite, and all layers are in 8 bits.
    overwrite
        Replace a file that is there.

    Raises
    ------
    TuckertreeError
        If the model cannot be exported, the file computes something else, or it cannot be written.
    UsageError
        If an argument has a value that it cannot have.

    Examples
    --------
    >>> import tempfile, torch, tuckertree as tt
    >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 32, 3), torch.nn.ReLU(), torch.nn.Conv2d(32, 64, 3))
    >>> image = torch.zeros(1, 3, 32, 32)
    >>> compressed = tt.compress(model, image, tt.Budget(macs=0.5)).model
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     done = tt.export(compressed, f"{folder}/small.onnx", image)
    >>> done.to, done.difference <= done.tolerance
    ('onnx', True)
    >>> done.compared[-1]  # on another batch, too
    ((3, 3, 32, 32),)
    """
    path = Path(path)
    to = check_target(path, to, overwrite=overwrite)
    runtime = get_runtime(formats()[to].name)
    if tolerance is not None and not tolerance >= 0:
        raise UsageError(f"the tolerance is 0 or more, not {tolerance}")
    inputs = _positional(example_inputs)
    if calibration is not None and to != "onnx":
        raise UsageError("quantization is for ONNX files")
    run_once(model, inputs)  # what does not run is said before anything else
    model = copy_for_inference(model).cpu()
    inputs = tuple(x.detach().cpu() for x in inputs)
    batches = None if calibration is None else _batches(calibration, inputs, dynamic)
    some = None if batches is None else _some(batches, dynamic)
    written = model if some is None else rebalance_for_int8(model, some)
    allowed = _TOLERANCES.get(inputs[0].dtype, 1e-4) if tolerance is None else tolerance
    samples = [inputs, *_others(inputs, dynamic)]
    for sample in samples[2:]:
        run_once(model, sample, "inputs of another size, which is to be free:")
    with atomic_files(path, overwrite=overwrite) as new:
        runtime.write(written, inputs, new, dynamic)
        compute = runtime.open(new).run
        before = allowed if batches is None else _TOLERANCES.get(inputs[0].dtype, 1e-4)
        difference, unquantized, int8 = _check(f"the {to} file", model, compute, samples, before), None, None
        if batches is not None and some is not None:
            samples, allowed = [some], INT8_TOLERANCE if tolerance is None else tolerance
            unquantized = difference_to(model, compute, samples[0])
            ranges, held = parted(batches, divisible=dynamic != "none")
            int8 = quantize(new, ranges, held, names=layer_names(written), tolerance=allowed)
            _check_int8(int8, allowed)
            compute = runtime.open(new).run
            difference = _check("the file in 8 bits", model, compute, samples, inf)
        size = sum(file.stat().st_size for file in new.parent.iterdir())
        del compute  # a file that is still open cannot be moved everywhere
    shapes = tuple(tuple(tuple(x.shape) for x in sample) for sample in samples)
    return Exported(path, to, size, difference, allowed, shapes, unquantized, int8)


def _some(batches: Sequence[Sample], dynamic: Dynamic) -> tuple[Tensor, ...]:
    """Images to choose factors by: some, where the batch is free."""
    if dynamic == "none":
        return tuple(batches[0])
    count = images_for_int8(batches[0][0])
    needed = batches[: 1 + count // max(1, min(len(batch[0]) for batch in batches))]
    return tuple(torch.cat(parts)[:count] for parts in zip(*needed, strict=True))


def _batches(
    calibration: Iterable[Tensor | Sequence[Tensor]], inputs: Sequence[Tensor], dynamic: Dynamic
) -> list[Sample]:
    """Batches to quantize by; for a file without free sizes in batches that it takes, what does not fill one left out."""
    batches: list[Sample] = [[x] if isinstance(x, Tensor) else list(x) for x in calibration]
    for batch in batches:
        if [x.shape[1:] for x in batch] != [x.shape[1:] for x in inputs]:
            raise TuckertreeError(
                f"calibration images are {describe(batch if len(batch) > 1 else batch[0])}, the network takes {describe(inputs)}"
            )
    if dynamic == "none":
        count = len(inputs[0])
        parts = (zip(*(x.split(count) for x in batch), strict=True) for batch in batches)
        batches = [part for some in parts for part in some if len(part[0]) == count]
    if not batches:
        raise TuckertreeError("there are no calibration images to quantize by")
    return batches


def _check_int8(int8: Int8Layers, allowed: float) -> None:
    if int8.distance is not None and not int8.distance <= allowed:
        raise TuckertreeError(
            f"8 bits in one layer alone move the outputs by {int8.distance:.2g} of their norm, {allowed:.2g} is allowed "
            "(--tolerance); nothing was written"
        )


def _check(
    what: str, model: nn.Module, compute: Compute, samples: Sequence[Sequence[Tensor]], allowed: float
) -> float:
    difference = max(difference_to(model, compute, sample) for sample in samples)
    if not difference <= allowed:
        raise TuckertreeError(
            f"{what} computes something else than the model: the outputs differ by {difference:.2g} of their largest, "
            f"{allowed:.2g} is allowed (--tolerance); nothing was written"
        )
    return difference


def check_target(path: Path, to: str | None, *, overwrite: bool) -> str:
    """Find the format of a file to be written; refuse, before any work is done, what cannot be.

    Raises
    ------
    UsageError
        If there is no such format, or the ending of the path is that of another.
    TuckertreeError
        If the path may not be written.
    """
    suffixes, ending = {name: kind.suffix for name, kind in formats().items()}, path.suffix.lower()
    if to is None:
        to = next((name for name, suffix in suffixes.items() if suffix == ending), None)
        if to is None:
            known = ", ".join(f"{suffix} ({name})" for name, suffix in suffixes.items())
            raise UsageError(f"{path} does not say by its ending what to export: {known}")
    if to not in suffixes:
        raise UsageError(f"unknown format {to!r}; known: {', '.join(suffixes)}")
    if ending != suffixes[to]:
        raise UsageError(f"a file of the format {to} ends with {suffixes[to]}, {path} does not")
    check_free_file(path, overwrite=overwrite)
    return to


def _positional(inputs: ExampleInputs) -> tuple[Tensor, ...]:
    listed = (inputs,) if isinstance(inputs, Tensor) else inputs
    if isinstance(listed, Mapping) or not all(isinstance(x, Tensor) and x.ndim for x in listed) or not listed:
        raise UsageError(f"export needs tensors as positional inputs, batch first, not {describe(inputs)}")
    return tuple(listed)


def _others(inputs: Sequence[Tensor], dynamic: Dynamic) -> list[tuple[Tensor, ...]]:
    """Random inputs of the same shape; then of other sizes, where these are free."""
    traceable(inputs, dynamic)  # refuses what is not known
    shapes = [[tuple(x.shape) for x in inputs]]
    if dynamic != "none":
        batch = len(inputs[0]) + 2
        shapes.append([(batch, *x.shape[1:]) for x in inputs])
    if dynamic == "size":
        shapes.append([(len(x), *x.shape[1:2], *(n + n // 2 for n in x.shape[2:])) for x in inputs])
    generator = torch.Generator().manual_seed(0)
    return [
        tuple(_random(shape, x, generator) for shape, x in zip(some, inputs, strict=True)) for some in shapes
    ]


def _random(shape: tuple[int, ...], like: Tensor, generator: torch.Generator) -> Tensor:
    """Noise of a shape; of integers and truth values only the example knows which there may be."""
    if like.is_floating_point():
        return torch.randn(shape, generator=generator).to(like.dtype)
    for axis, size in enumerate(shape):
        like = like.index_select(axis, torch.arange(size) % like.shape[axis])
    return like


def difference_to(model: nn.Module, compute: Compute, inputs: Sequence[Tensor]) -> float:
    """Largest difference of a file's outputs to a model's, relative to the largest of them.

    Raises
    ------
    TuckertreeError
        If the file does not run on the inputs, or its outputs have other shapes.
    """
    expected = reference_outputs(model, inputs)
    try:
        found = compute(inputs)
    except TuckertreeError:
        raise
    except Exception as error:  # the runtime's own, of many types
        raise TuckertreeError(
            f"the exported file does not run on inputs {describe(inputs)}: {first_line(error)}; where the exporter has fixed a size, "
            'leave no axis free (dynamic="none", --dynamic none)'
        ) from error
    if [tuple(y.shape) for y in expected] != [tuple(y.shape) for y in found]:
        raise TuckertreeError(
            f"the exported file gives outputs {describe(found)} where the model gives {describe(expected)}"
        )
    worst = 0.0
    for a, b in zip(expected, found, strict=True):
        scale = float(a.abs().max()) if a.numel() else 0.0
        gap = float((a.double() - b.double()).abs().max()) if a.numel() else 0.0
        ratio = gap / scale if scale else gap
        worst = max(worst, ratio if ratio == ratio else float("inf"))  # NaN is no agreement
    return worst
