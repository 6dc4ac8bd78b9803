"""PyTorch as a runtime: as it is, and compiled."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FunctionType
from typing import ClassVar

import torch
from torch import Tensor, nn

from tuckertree._base.errors import TuckertreeError, first_line
from tuckertree.measure import copy_for_inference, synchroniser
from tuckertree.runtimes.onnx_model import Dynamic, dynamic_shapes, quiet_export, traceable
from tuckertree.runtimes.runtime import Runnable, Runtime, tensors_of


class TorchRunnable(Runnable):
    """A module, or what torch.compile made of it."""

    def __init__(self, forward: Callable[..., object], device: str) -> None:
        self._forward, self._device = forward, device

    def bind(self, inputs: Sequence[Tensor]) -> Callable[[], object]:
        """As :meth:`Runnable.bind`."""
        forward, there = self._forward, tuple(x.to(self._device) for x in inputs)
        synchronise = synchroniser(self._device)

        def once() -> object:
            with torch.inference_mode():
                output = forward(*there)
                synchronise()
                return output

        return once

    def run(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """As :meth:`Runnable.run`."""
        return [tensor.cpu() for tensor in tensors_of(self.bind([x.clone() for x in inputs])())]

    @property
    def threads(self) -> int:
        """As :attr:`Runnable.threads`: torch's own, for all that it runs."""
        return torch.get_num_threads()


class TorchRuntime(Runtime):
    """Eager PyTorch; its files are those of ``torch.export``."""

    name: ClassVar[str] = "torch"
    devices: ClassVar[tuple[str, ...]] = ("cpu", "cuda", "mps", "xpu")
    format: ClassVar[str] = "pt2"
    suffix: ClassVar[str] = ".pt2"
    measures_memory: ClassVar[bool] = True

    @property
    def version(self) -> str:
        """Version of torch."""
        return torch.__version__

    def load(self, model: nn.Module, inputs: Sequence[Tensor]) -> Runnable:  # noqa: ARG002
        """As :meth:`Runtime.load`."""
        return TorchRunnable(copy_for_inference(model).to(self.device), self.device)

    def open(self, path: Path) -> Runnable:
        """As :meth:`Runtime.open`."""
        if path.suffix.lower() != self.suffix:
            return super().open(path)
        try:
            module = torch.export.load(path).module()
        except Exception as error:
            complaint = " ".join(str(error).split()) or type(error).__name__
            raise TuckertreeError(f"{self.name} cannot load {path}: {complaint}") from error
        return TorchRunnable(module.to(self.device), self.device)

    def write(
        self, model: nn.Module, inputs: Sequence[Tensor], path: Path, dynamic: Dynamic = "none"
    ) -> None:
        """As :meth:`Runtime.write`."""
        with quiet_export(self.format), torch.no_grad():
            shapes = dynamic_shapes(model, inputs, dynamic)
            # Strictly, torch 2.6 exports nothing that the process has compiled; from 2.7 this is the default.
            program = torch.export.export(
                model, traceable(inputs, dynamic), dynamic_shapes=shapes, strict=False
            )
            content = io.BytesIO()
            torch.export.save(program, content)
        path.write_bytes(content.getbuffer())  # torch's own writer ends the process where the disk is full

    @contextmanager
    def active(self) -> Iterator[None]:
        """Set torch's number of threads, and set it back."""
        before = torch.get_num_threads()
        torch.set_num_threads(self.threads)
        try:
            yield
        finally:
            torch.set_num_threads(before)


class CompiledRuntime(TorchRuntime):
    """PyTorch with ``torch.compile``, for exactly the shapes it is loaded with."""

    name: ClassVar[str] = "torch-compile"
    format: ClassVar[str] = ""
    suffix: ClassVar[str] = ""
    measures_memory: ClassVar[bool] = False

    def load(self, model: nn.Module, inputs: Sequence[Tensor]) -> Runnable:
        """As :meth:`Runtime.load`; compiles."""
        copied = copy_for_inference(model).to(self.device)

        def forward(*args: Tensor) -> object:
            return copied(*args)

        # torch.compile keeps what it has compiled by code object and gives up after eight: each its own.
        own = FunctionType(
            forward.__code__.replace(), forward.__globals__, "forward", None, forward.__closure__
        )
        runnable = TorchRunnable(torch.compile(own, dynamic=False), self.device)
        try:
            with self.active():
                runnable.run(inputs)
        except Exception as error:
            raise TuckertreeError(f"torch.compile does not work here: {first_line(error)}") from error
        return runnable
