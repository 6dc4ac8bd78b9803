"""Ways to run a network, by name: what runs it, with how many threads, on which device."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from tuckertree._base.errors import TuckertreeError
from tuckertree.measure.nested import leaves


class Runnable(ABC):
    """A network made ready by a runtime."""

    @abstractmethod
    def bind(self, inputs: Sequence[Tensor]) -> Callable[[], Any]:
        """Give a function that runs the network once on these inputs and returns when it is done."""

    @abstractmethod
    def run(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """Run the network and give its outputs, on the CPU."""


class Runtime(ABC):
    """Something that runs networks.

    Attributes
    ----------
    name
        As :func:`~tuckertree.runtimes.get_runtime` takes it.
    threads
        Threads of the processor that one run may use.
    device
        A torch device.
    """

    name: ClassVar[str]
    reads_onnx: ClassVar[bool] = False

    def __init__(self, threads: int, device: str) -> None:
        self.threads, self.device = threads, device

    @property
    @abstractmethod
    def version(self) -> str:
        """Version of the package that runs the networks."""

    @property
    def hardware(self) -> str:
        """Name of the graphics processor it runs on; empty on the processor."""
        return torch.cuda.get_device_name(self.device) if self.device.startswith("cuda") else ""

    @abstractmethod
    def load(self, model: nn.Module, inputs: Sequence[Tensor]) -> Runnable:
        """Make a module ready to run on inputs of these shapes and types; the module is not changed."""

    def load_branches(self, models: Sequence[nn.Module], inputs: Sequence[Tensor]) -> list[Runnable]:
        """Make several small modules ready that take the same inputs."""
        return [self.load(model, inputs) for model in models]

    def open(self, path: Path) -> Runnable:
        """Make an ONNX file ready to run.

        Raises
        ------
        TuckertreeError
            If this runtime reads no ONNX, or the file cannot be read.
        """
        raise TuckertreeError(f"{path.name} is an ONNX file, which the runtime {self.name} does not read")

    @contextmanager
    def active(self) -> Iterator[None]:
        """Settings of the process while it runs networks."""
        yield


def tensors_of(output: Any) -> list[Tensor]:
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
