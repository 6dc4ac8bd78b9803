"""PyTorch on a GPU of NVIDIA with chains in Triton kernels where they are faster, as one CUDA graph."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any, ClassVar, cast
from warnings import warn

import torch
from torch import Tensor, nn

from tuckertree._base.errors import TuckertreeError, first_line
from tuckertree.core.layers import LayerSpec
from tuckertree.measure import copy_for_inference, synchroniser, time_in_turns
from tuckertree.network.surgery import replace_layers
from tuckertree.runtimes.epilogues import ChainWithEpilogue, with_epilogues
from tuckertree.runtimes.runtime import Runnable, tensors_of
from tuckertree.runtimes.torch_runtimes import TorchRunnable, TorchRuntime
from tuckertree.runtimes.triton_chain import FusedChain

Timer = Callable[[Sequence[Callable[[], object]]], Sequence[float]]
"""Seconds of one run of each function."""

_IN_A_GRAPH = 10
"""Runs of a chain in one launch while it is timed."""
_TOLERANCES = {torch.float16: 0.02, torch.bfloat16: 0.05}
_TF32 = 0.005
"""Of networks in single precision, whose products a GPU may round to the 11 bits of TF32."""


def least_seconds(runs: Sequence[Callable[[], object]]) -> list[float]:
    """Least time of each in a few rounds in turns."""
    return [min(times) for times in time_in_turns(runs, repeats=9, shortest=1e-3)]


class TritonRunnable(TorchRunnable):
    """A network, run as a CUDA graph where it can be captured.

    Attributes
    ----------
    network
        On its device.
    """

    def __init__(self, network: nn.Module, device: str, *, channels_last: bool) -> None:
        super().__init__(network, device)
        self.network, self._channels_last = network, channels_last

    def bind(self, inputs: Sequence[Tensor]) -> Callable[[], object]:
        """As :meth:`Runnable.bind`."""
        there = placed(inputs, self._device, channels_last=self._channels_last)
        run = captured(partial(_run, self.network, there, self._device), self._device)
        synchronise = synchroniser(self._device)

        def once() -> object:
            output = run()
            synchronise()
            return output

        return once

    def run(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """As :meth:`Runnable.run`."""
        return _outputs(
            self.network, placed(inputs, self._device, channels_last=self._channels_last), self._device
        )


class TritonRuntime(TorchRuntime):
    """PyTorch with BatchNorms folded and chains in Triton kernels, which add residuals and apply ReLU.

    Each distinct chain is timed once on inputs as the network gives it, in torch's layers and in the kernels, with what
    follows it; what is faster is kept. The network keeps its type. If its outputs on the example are not those of
    torch's layers, it is run by these, with a warning.

    Parameters
    ----------
    timer
        Times the two, in this order.
    """

    name: ClassVar[str] = "triton"
    devices: ClassVar[tuple[str, ...]] = ("cuda",)
    format: ClassVar[str] = ""
    suffix: ClassVar[str] = ""
    measures_memory: ClassVar[bool] = False

    def __init__(self, threads: int, device: str, timer: Timer = least_seconds) -> None:
        super().__init__(threads, device)
        self._timer = timer
        self._is_faster: dict[Hashable, bool] = {}

    @property
    def version(self) -> str:
        """Versions of triton and torch."""
        try:
            import triton
        except ImportError as error:
            raise TuckertreeError(
                "the package triton is not installed; it comes with PyTorch for CUDA on Linux"
            ) from error
        return f"{triton.__version__}, torch {torch.__version__}"

    def load(self, model: nn.Module, inputs: Sequence[Tensor]) -> Runnable:
        """As :meth:`Runtime.load`."""
        network = copy_for_inference(model).to(self.device)
        expected = _outputs(network, placed(inputs, self.device), self.device)
        there = placed(inputs, self.device, channels_last=True)
        try:
            fused = self._fused(network, there)
            difference = _difference(_outputs(fused, there, self.device), expected)
            is_same = difference <= _tolerance(network)
            complaint = "" if is_same else f"outputs would differ by {difference:.3g}"
        except Exception as error:  # of any class: a network may not stand to be taken apart
            complaint = first_line(error)
        if not complaint:
            return TritonRunnable(fused, self.device, channels_last=True)
        warn(f"the network is run by torch's layers, not in Triton kernels: {complaint}", stacklevel=2)
        return TritonRunnable(network, self.device, channels_last=False)

    def _fused(self, network: nn.Module, inputs: Sequence[Tensor]) -> nn.Module:
        """A copy with chains in Triton kernels where they are faster, convolutions in ``torch.channels_last``."""
        copied = copy_for_inference(network)
        for module in copied.modules():
            if isinstance(module, nn.Conv2d):
                module.to(memory_format=torch.channels_last)
        copied = with_epilogues(copied, inputs)
        faster = {
            name: fused
            for name, (chain, given) in _inputs_of_chains(copied, inputs, self.device).items()
            if (fused := self._faster(chain, given)) is not None
        }
        return replace_layers(copied, faster)

    def _faster(self, chain: ChainWithEpilogue, given: Sequence[Tensor]) -> FusedChain | None:
        """A chain in Triton kernels if it is faster so on such inputs."""
        shapes = [(x.shape, x.stride(), x.dtype) for x in given]
        key = (chain.relu, *map(LayerSpec.of, chain.chain), *shapes)
        fused = FusedChain(chain.chain, relu=chain.relu)
        if key not in self._is_faster:
            inputs = [torch.randn_like(x, device=self.device) for x in given]
            runs = [partial(_run, form, inputs, self.device) for form in (chain, fused)]
            try:
                torchs, ours = self._timer([captured(run, self.device, _IN_A_GRAPH) for run in runs])
                self._is_faster[key] = ours < torchs
            except Exception as error:  # of any class: the kernels are compiled here
                warn(
                    f"a chain is run by torch's layers, not in Triton kernels: {first_line(error)}",
                    stacklevel=4,
                )
                self._is_faster[key] = False
        return fused if self._is_faster[key] else None


def captured(run: Callable[[], object], device: str, times: int = 1) -> Callable[[], object]:
    """What runs a function so many times: one launch of a CUDA graph where its work can be captured.

    On a CPU, and where the function waits for the device or copies from it, it is called each time.
    """

    def called() -> object:
        for _ in range(times):
            output = run()
        return output

    if torch.device(device).type != "cuda":
        return called
    with torch.cuda.device(device):
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                run()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph):
                kept = called()
        except RuntimeError:
            torch.cuda.synchronize()
            return called

    def replay() -> object:
        graph.replay()
        return kept

    return replay


def placed(inputs: Sequence[Tensor], device: str, *, channels_last: bool = False) -> list[Tensor]:
    """Inputs on a device, images in ``torch.channels_last`` if that is wanted."""
    there = [x.to(device) for x in inputs]
    return [
        x.contiguous(memory_format=torch.channels_last) if channels_last and x.ndim == 4 else x for x in there
    ]


def _run(network: nn.Module, inputs: Sequence[Tensor], device: str) -> object:
    """Run a network; cuDNN tries its algorithms for each shape, once."""
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = True
    try:
        with (
            torch.inference_mode(),
            torch.cuda.device(device) if torch.device(device).type == "cuda" else nullcontext(),
        ):
            return network(*inputs)
    finally:
        torch.backends.cudnn.benchmark = before


def _outputs(network: nn.Module, inputs: Sequence[Tensor], device: str) -> list[Tensor]:
    """What a network returns, on the CPU; the inputs stay as they are."""
    return [x.cpu() for x in tensors_of(_run(network, [x.clone() for x in inputs], device))]


def _inputs_of_chains(
    network: nn.Module, inputs: Sequence[Tensor], device: str
) -> dict[str, tuple[ChainWithEpilogue, tuple[Tensor, ...]]]:
    """Each chain that the network calls, with what it is first called with, without its numbers."""
    found: dict[str, tuple[ChainWithEpilogue, tuple[Tensor, ...]]] = {}
    hooks = []
    for name, module in network.named_modules():
        if isinstance(module, ChainWithEpilogue):

            def look(chain: nn.Module, args: Any, kwargs: Any, name: str = name) -> None:
                given = tuple(torch.empty_like(x, device="meta") for x in (*args, *kwargs.values()))
                found.setdefault(name, (cast("ChainWithEpilogue", chain), given))

            hooks.append(module.register_forward_pre_hook(look, with_kwargs=True))
    if hooks:
        _run(network, [x.clone() for x in inputs], device)
    for hook in hooks:
        hook.remove()
    return found


def _tolerance(network: nn.Module) -> float:
    """Largest relative difference of outputs that rounding may make."""
    types = {p.dtype for p in network.parameters()}
    return max((tolerance for dtype, tolerance in _TOLERANCES.items() if dtype in types), default=_TF32)


def _difference(found: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """Largest relative difference of outputs, in the Euclidean norm, where those that are expected are finite."""
    if [x.shape for x in found] != [x.shape for x in expected]:
        return float("inf")
    most = 0.0
    for a, b in zip(found, expected, strict=True):
        known = b.isfinite()
        first, second = (x[known].to(torch.float64) for x in (a, b))
        distance = float((first - second).norm())
        if distance:
            most = max(most, distance / max(float(second.norm()), torch.finfo(torch.float64).tiny))
        if distance != distance:
            return distance
    return most
