"""What a runtime is: how it makes networks ready, and what it is able to do."""

from __future__ import annotations

import copy
import platform
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from tuckertree._base.errors import TuckertreeError, UsageError
from tuckertree.measure import processor
from tuckertree.measure.nested import leaves
from tuckertree.runtimes.onnx_model import Dynamic
from tuckertree.runtimes.quantization import FP32


class Runnable(ABC):
    """A network made ready by a runtime."""

    @abstractmethod
    def bind(self, inputs: Sequence[Tensor]) -> Callable[[], object]:
        """Give a function that runs the network once on these inputs and returns when it is done."""

    @abstractmethod
    def run(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """Run the network and give its outputs, on the CPU."""

    @property
    def threads(self) -> int | None:
        """Threads that a run uses, asked of the library; None where it does not say."""
        return None


class Runtime(ABC):
    """Something that runs networks. Whatever differs between runtimes is said here, and asked for nowhere by name.

    Attributes
    ----------
    name
        As :func:`~tuckertree.runtimes.get_runtime` takes it.
    devices
        Types of torch devices that it runs on.
    format, suffix
        The kind of file that it writes, as :func:`~tuckertree.io.export.export` takes it, and how the names of
        such files end; empty where it writes none.
    reads_onnx
        Whether it opens ONNX files.
    measures_memory
        Whether its memory on the CPU can be measured, by opening a file in another process. That process finds a
        runtime of another package by the entry point ``tuckertree.runtimes``.
    precisions
        In which it can run a network; all runtimes do so in single precision, ``fp32``.
    threads
        Threads of the CPU that one run may use.
    device
        A torch device.
    precision
        What :meth:`load` makes of a network; files are run as they are.
    """

    name: ClassVar[str]
    devices: ClassVar[tuple[str, ...]] = ("cpu",)
    format: ClassVar[str] = ""
    suffix: ClassVar[str] = ""
    reads_onnx: ClassVar[bool] = False
    measures_memory: ClassVar[bool] = False
    precisions: ClassVar[tuple[str, ...]] = (FP32,)
    precision: str = FP32

    def __init__(self, threads: int, device: str) -> None:
        self.threads, self.device = threads, device

    @property
    @abstractmethod
    def version(self) -> str:
        """Version of the package that runs the networks; imports it, or says what to install."""

    @property
    def hardware(self) -> str:
        """Name of the GPU or CPU that it runs on."""
        return torch.cuda.get_device_name(self.device) if self.device.startswith("cuda") else processor()

    @property
    def key(self) -> dict[str, str | int]:
        """All that a time depends on beside the network and its input: the key of the cache of times."""
        return {
            "runtime": self.name,
            "version": self.version,
            "machine": f"{platform.machine()} {self.hardware}",
            "threads": self.threads,
            "device": self.device,
            **({} if self.precision == FP32 else {"precision": self.precision}),
        }

    def at(self, precision: str) -> Self:
        """The same runtime in a precision, one of :attr:`precisions`.

        Raises
        ------
        UsageError
            If it cannot run networks so.
        """
        if precision not in self.precisions:
            raise UsageError(
                f"the runtime {self.name} runs networks in {', '.join(self.precisions)}, not in {precision!r}"
            )
        other = copy.copy(self)
        other.precision = precision
        return other

    @abstractmethod
    def load(self, model: nn.Module, inputs: Sequence[Tensor]) -> Runnable:
        """Make a module ready to run on inputs of these shapes and types; the module is not changed.

        Raises
        ------
        TuckertreeError
            If the runtime cannot run it.
        """

    def load_branches(self, models: Sequence[nn.Module], inputs: Sequence[Tensor]) -> list[Runnable]:
        """Make several small modules ready that take the same inputs."""
        return [self.load(model, inputs) for model in models]

    def open(self, path: Path) -> Runnable:
        """Make a file ready to run: one of its own :attr:`format`, or of ONNX where it reads that.

        Raises
        ------
        TuckertreeError
            If this is no file of a kind that it reads, or the file cannot be read.
        """
        what = "an ONNX file" if path.suffix.lower() == ".onnx" else "a file"
        raise TuckertreeError(f"{path.name} is {what}, which the runtime {self.name} does not read")

    def write(
        self,
        model: nn.Module,  # noqa: ARG002
        inputs: Sequence[Tensor],  # noqa: ARG002
        path: Path,
        dynamic: Dynamic = "none",  # noqa: ARG002
    ) -> None:
        """Write a module in evaluation mode as a file of :attr:`format`, for inputs of these shapes and types.

        Parameters
        ----------
        dynamic
            Sizes of the inputs that stay free.

        Raises
        ------
        TuckertreeError
            If the module cannot be written so.
        """
        raise TuckertreeError(f"the runtime {self.name} writes no files, such as {path.name}")

    @contextmanager
    def active(self) -> Iterator[None]:
        """Settings of the process while it runs networks."""
        yield


def usable_device(name: str) -> torch.device:
    """The torch device of a name.

    Raises
    ------
    UsageError
        If it is none, or not there.
    """
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(f"device {name!r} cannot be used here: {str(error).splitlines()[0]}") from error
    return device


def tensors_of(output: object) -> list[Tensor]:
    """List the tensors in what a model returns: one, or any nesting of containers and dataclasses."""
    found = [leaf for leaf in leaves(output) if leaf is not None]
    for leaf in found:
        if not isinstance(leaf, Tensor):
            raise TuckertreeError(f"the model returns a {type(leaf).__name__} where a tensor is needed")
    return found


@torch.inference_mode()
def reference_outputs(model: nn.Module, inputs: Sequence[Tensor]) -> list[Tensor]:
    """Run a module that is in evaluation mode and list its outputs, on the CPU."""
    own = [x.clone() for x in inputs]  # the model may change them in place
    return [tensor.cpu() for tensor in tensors_of(model(*own))]
