"""What can be compressed, as all of compress() sees it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from tuckertree.calibration import Calibration, CalibrationData
from tuckertree.compression.int8 import Fits, Int8Network
from tuckertree.compression.onnx_output import OnnxOutput
from tuckertree.io.sizes import Size
from tuckertree.latency import LatencyTarget
from tuckertree.measure import ExampleInputs
from tuckertree.planning import Budget, Inventory, Layer, Options, Plan
from tuckertree.planning.channels import HiddenChannels


class Network(ABC):
    """A network that can be compressed.

    Attributes
    ----------
    layers_are
        What its layers are called.
    """

    layers_are: str

    @property
    @abstractmethod
    def module(self) -> nn.Module:
        """The dense network in torch, with gradients; a layer is its submodule of that name."""

    @property
    @abstractmethod
    def example(self) -> ExampleInputs:
        """What :attr:`module` is called with once."""

    @property
    def batch(self) -> int | None:
        """Samples that it takes at a time, where that is prescribed."""
        return None

    @abstractmethod
    def images(self, source: CalibrationData) -> Calibration:
        """Calibration images in the form that it takes."""

    @contextmanager
    def opened(self, images: Calibration | None) -> Iterator[None]:  # noqa: ARG002
        """Hold it as it is; whatever is done to it in the block is undone."""
        yield

    @abstractmethod
    def inventory(self) -> Inventory:
        """Its layers."""

    def probed(self, inventory: Inventory, options: Options) -> Inventory:  # noqa: ARG002
        """The inventory, with skip reasons found by trying."""
        return inventory

    def hidden(self, inventory: Inventory, options: Options) -> list[HiddenChannels]:  # noqa: ARG002
        """Hidden channels of which some may go."""
        return []

    def settle(self) -> None:  # noqa: B027  (a file has no state)
        """Put it back as it was when it was opened."""

    @abstractmethod
    def check_images(self, images: Calibration) -> None:
        """Refuse images that it was not made for."""

    @abstractmethod
    def target(self, rule: Budget) -> LatencyTarget:
        """A budget of latency for it."""

    def check_precision(self, precision: str) -> None:  # noqa: B027  (most can all)
        """Refuse a precision that a network of its kind cannot be compressed in."""

    @abstractmethod
    def in_int8(
        self, compressed: nn.Module, plan: Plan, images: Calibration, fits: Fits | None = None
    ) -> Int8Network:
        """A compressed module in 8 bits, in the form that the plan says, but for layers that lose most by it, while it fits."""

    def weighs(self, layer: Layer) -> bool:  # noqa: ARG002
        """Whether a layer is a module with a weight of its own."""
        return True

    @abstractmethod
    def finished(self, compressed: nn.Module, plan: Plan, inventory: Inventory) -> tuple[nn.Module, Plan]:
        """A compressed module as it is given back, and its plan."""

    def output(
        self,
        compressed: nn.Module,  # noqa: ARG002
        plan: Plan,  # noqa: ARG002
        images: Calibration | None,  # noqa: ARG002
        int8: Int8Network | None,  # noqa: ARG002
    ) -> OnnxOutput | None:
        """What is written of it; None for a saved folder."""
        return None

    @property
    def input_size(self) -> Size | None:
        """Size of its example input."""
        return None
