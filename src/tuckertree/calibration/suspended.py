"""Forwards that stop at every watched layer, all batches together, and go on when told to.

Fitting layer after layer needs each layer's input in the network as it is by then. Running all images anew
for each layer costs a forward pass for each layer; suspending every batch's forward pass at the layer costs one forward pass
in all, and the memory of the activations that are alive there. Nothing need be known of the network's graph:
each forward pass is a thread of its own, of which only one runs at a time.
"""

from __future__ import annotations

from collections.abc import Collection, Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from math import prod
from threading import Semaphore, Thread, current_thread

import torch
from torch import Tensor, nn

from tuckertree._base.errors import TuckertreeError
from tuckertree.calibration.batches import batch_size, narrow
from tuckertree.calibration.moments import Captured
from tuckertree.calibration.patches import output_sizes
from tuckertree.calibration.sources import to_model
from tuckertree.measure import ExampleInputs, call, evaluating, layer_input
from tuckertree.measure.control_flow import ControlFlow, control_flow_here, followed
from tuckertree.planning import Layer

_ROUNDING = 1e-3


def live_bytes(layers: Sequence[Layer], images: int) -> int:
    """Estimate of the activations of two suspended networks at the layer where they are largest."""
    numbers = 0
    for layer in layers:
        for use in layer.calls:
            inputs = layer.spec.in_channels * prod(use.size_in)
            outputs = layer.spec.out_channels * prod(use.size_out)
            numbers = max(numbers, inputs + outputs)
    return 12 * numbers * images  # two networks, and half as much again for what skips the layer


class SuspendedForward(Thread):
    """One forward of one batch.

    Attributes
    ----------
    returned
        What the network returned.
    """

    returned: object = None

    def __init__(self, model: nn.Module, inputs: ExampleInputs) -> None:
        super().__init__(daemon=True)
        self._model, self._inputs = model, inputs
        self._go, self._here = Semaphore(0), Semaphore(0)
        self._captured: Captured | None = None
        self._error: BaseException | None = None
        self._stop_wanted = False
        self.start()

    def advance(self) -> Captured | None:
        """Go on to the next watched layer, or to the end (None)."""
        self._captured = None
        self._go.release()
        self._here.acquire()
        if self._error is not None:
            raise self._error
        return self._captured

    def finish(self) -> object:
        """Go on to the end, and take what the network returned."""
        while self.advance() is not None:
            pass
        returned, self.returned = self.returned, None
        return returned

    def end(self) -> None:
        """End the forward pass where it is."""
        self._stop_wanted = True
        self._go.release()
        self.join()

    def run(self) -> None:
        """The thread's own work."""
        self._go.acquire()
        try:
            if not self._stop_wanted:
                with torch.no_grad(), ControlFlow():
                    self.returned = call(
                        self._model, to_model(self._inputs, self._model), "the calibration images"
                    )
        except _StopError:
            pass
        except BaseException as error:  # raised again where the forward pass is advanced
            self._error = error
        self._captured = None
        self._here.release()

    def pause(self, captured: Captured) -> None:
        """Wait, in the thread, at a layer."""
        self._captured = captured
        self._here.release()
        self._go.acquire()
        if self._stop_wanted:
            raise _StopError


class _StopError(BaseException):
    """Ends a forward pass that is no longer wanted."""


def can_suspend(model: nn.Module, layers: Sequence[Layer], batches: Sequence[ExampleInputs]) -> bool:
    """Whether batches that wait for each other at the layers see there what each sees alone.

    They do not where a module keeps an activation on itself until later in the forward. A few images tell, as
    two batches of different sizes.
    """
    size = min(batch_size(batches[0]), 3)
    try:
        few = [narrow(batches[0], 0, size - 1), narrow(batches[0], 0, size)] if size > 1 else batches[:2]
        alone = [[x for (x,) in _inputs(model, layers, [batch])] for batch in few]
        with closing(_inputs(model, layers, few)) as together:
            return all(
                all(map(_are_alike, inputs, wanted)) for inputs, *wanted in zip(together, *alone, strict=True)
            )
    except Exception:  # if it is not for the turns, it is raised where forward passes run to their ends
        return False


def _inputs(
    model: nn.Module, layers: Sequence[Layer], batches: Sequence[ExampleInputs]
) -> Generator[list[Tensor], None, None]:
    """What goes into each layer, in turn, of each batch."""
    with suspended(model, layers, batches) as forwards:
        for layer in layers:
            yield [advance(forward, layer.name).x.clone() for forward in forwards]


def _are_alike(x: Tensor, y: Tensor) -> bool:
    return x.shape == y.shape and bool((x - y).float().norm() <= _ROUNDING * y.float().norm())


@contextmanager
def suspended(
    model: nn.Module,
    layers: Sequence[Layer],
    batches: Sequence[ExampleInputs],
    following: Collection[str] = (),
    *,
    changing: bool = False,
) -> Iterator[list[SuspendedForward]]:
    """Forwards of all batches, in evaluation mode, that stop at each of the layers.

    They stop when it has answered, or, of a network that is ``changing`` meanwhile, before: so it answers with the
    weights it has by then, and the size of its output is not known yet. ``following`` as of
    :func:`~tuckertree.calibration.moments.captured_inputs`.
    """
    watched: Mapping[nn.Module, Layer] = {model.get_submodule(layer.name): layer for layer in layers}

    def stop(module: nn.Module, inputs: Tensor, size_out: tuple[int, ...]) -> None:
        thread = current_thread()
        assert isinstance(thread, SuspendedForward)
        thread.pause(Captured(watched[module].name, inputs, size_out, control_flow_here()))

    def before(module: nn.Module, args: tuple[object, ...], kwargs: dict[str, object]) -> None:
        stop(module, layer_input(args, kwargs), ())

    def after(module: nn.Module, args: tuple[object, ...], kwargs: dict[str, object], output: Tensor) -> None:
        stop(module, layer_input(args, kwargs), output_sizes(output, watched[module].spec))

    with ExitStack() as ending:
        # Both stop within what ``followed`` notes as the layer's own affair.
        for module in watched if not changing else ():
            ending.callback(module.register_forward_hook(after, with_kwargs=True).remove)
        ending.enter_context(evaluating(model, as_written=True))
        ending.enter_context(followed(model, following))
        for module in watched if changing else ():
            ending.callback(module.register_forward_pre_hook(before, with_kwargs=True).remove)
        forwards = [SuspendedForward(model, inputs) for inputs in batches]
        for forward in forwards:
            ending.callback(forward.end)
        yield forwards


def advance(forward: SuspendedForward, name: str) -> Captured:
    """Advance a forward pass to the layer of that name, which must be the next.

    Raises
    ------
    OtherWayError
        If it is not: the control flow of the network differs between images.
    """
    captured = forward.advance()
    if captured is None or captured.name != name:
        raise OtherWayError(f"{name}: the network does not call its layers in the same order for all images")
    return captured


class OtherWayError(TuckertreeError):
    """A forward does not come to a layer when the others do."""
