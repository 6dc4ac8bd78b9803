"""The probe: a model beside its copies, and which layers must stay what they are."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from itertools import chain
from warnings import warn

from torch import nn

from tuckertree._base.errors import TuckertreeError
from tuckertree.core.layers import Chain, weight_of
from tuckertree.measure import ExampleInputs, Snapshot, copy_model, preserved, run
from tuckertree.network.probing.comparison import difference
from tuckertree.network.probing.recording import MODES, Record, perturbations, record
from tuckertree.network.probing.sharing import kept_elsewhere, shared
from tuckertree.network.probing.shells import Shell, emptied
from tuckertree.planning import DENSE, Inventory, Options, Plan

Records = dict[bool, Sequence[Record]]


class ProbeWarning(UserWarning):
    """A model gives other outputs each time, or takes another path once it is compressed."""


def probe(
    model: nn.Module,
    inventory: Inventory,
    example_inputs: ExampleInputs,
    options: Options | None = None,
    *,
    state: Snapshot | None = None,
) -> Inventory:
    """Find the layers in whose place a chain would change what a model computes.

    The model runs beside a copy with shells in place of the layers that may be compressed, on the example input and
    on a perturbed one, in evaluation mode and, where it runs so, in training mode; both must do the same. While the
    copy runs, the original's tensors hold NaN, so that nothing is computed with them. It takes eight forward passes; the
    layers to blame, if there are any, are found by bisection.

    Parameters
    ----------
    model
        As the inventory was taken of; it is left as it was.
    options
        Which layers may be compressed; by default all that can.
    state
        A snapshot of the model that is at hand.

    Returns
    -------
    Inventory
        With a skip reason, for these layers.

    Raises
    ------
    TuckertreeError
        If a copy of the model does something else than the model, whatever stands in it, or cannot be made.

    Warns
    -----
    ProbeWarning
        If the model does something else each time it runs.
    """
    options = options or Options()
    planned = {
        layer.name: method for layer in inventory.layers if (method := options.method(layer)[0]) != DENSE
    }
    if not planned:
        return inventory
    with preserved(model) if state is None else nullcontext(state) as state:
        try:
            reasons = _Probe(model, example_inputs, planned, state).refused()
        finally:
            state.restore()
    layers = (replace(x, skip_reason=reasons.get(x.name, x.skip_reason)) for x in inventory.layers)
    return replace(inventory, layers=tuple(layers))


class _Probe:
    """Compares a model with copies of it; each time it starts from the state in the snapshot."""

    def __init__(
        self, model: nn.Module, inputs: ExampleInputs, planned: dict[str, str], state: Snapshot
    ) -> None:
        self._model, self._planned, self._state = model, planned, state
        self._trains = True
        self._others = perturbations(inputs)
        self._inputs = [inputs, next(self._others)]
        self._again: Records | None = None

    def refused(self) -> dict[str, str]:
        """Names of the layers that must stay, and why."""
        names = list(self._planned)
        if self._difference(names) is None:
            return {}
        self._again = self._repeated()
        if (found := self._difference([])) is not None:
            raise TuckertreeError(self._not_copied(found))
        kept: list[str] = []
        reasons: dict[str, str] = {}
        blocks = [names]
        while blocks:
            block = blocks.pop()
            found = self._difference(kept + block)
            if found is None:
                kept += block
            elif len(block) == 1:
                reasons[block[0]] = self._reason(block[0], found)
            else:
                middle = len(block) // 2
                blocks += [block[middle:], block[:middle]]
        return reasons

    def _difference(self, names: Sequence[str]) -> str | None:
        """In what a copy with shells in some places differs from the model."""
        self._state.restore()
        layers = {name: self._model.get_submodule(name) for name in names}
        shells = {name: Shell(layer, self._planned[name]) for name, layer in layers.items()}
        replaced = [p for layer in layers.values() for p in layer.parameters(recurse=False)]
        try:
            with emptied(self._model, replaced):  # what else holds them copies nonsense
                copy = copy_model(self._model, {layers[name]: shell.chain for name, shell in shells.items()})
        except TuckertreeError:
            if not names:
                raise
            return "it cannot be copied with one"
        ours = self._records()
        written = (name for name, layer in layers.items() if self._state.has_changed(weight_of(layer)))
        if (name := next(written, None)) is not None:  # the shells' answers are from the same memory
            return f"it writes into the weight of {name}"
        with emptied(self._model, chain(self._model.parameters(), self._model.buffers())):
            for training, records in ours.items():
                try:
                    theirs = record(copy, self._inputs, training=training)
                except TuckertreeError as error:
                    return f"{error}, in {MODES[training]} mode"
                again = self._again[training] if self._again else None
                if found := difference(records, theirs, again):
                    return found
        unused = [name for name, shell in shells.items() if not shell.is_used]
        return f"the copy does not use {unused[0]}" if unused else None

    def _records(self) -> Records:
        found: Records = {False: self._evaluated()}
        if self._trains:
            try:
                found[True] = record(self._model, self._inputs, training=True)
            except TuckertreeError:  # such as BatchNorm on a single value
                self._trains = False
        return found

    def _repeated(self) -> Records | None:
        """A second record of the model from the same state, if it is another one."""
        self._state.restore()
        once = self._records()
        self._state.restore()
        again = self._records()
        found = next((d for mode in again if (d := difference(once[mode], again[mode]))), None)
        if found is None:
            return None
        warn(
            f"two runs of the model itself are not the same ({found}); a copy was compared only within that",
            ProbeWarning,
            stacklevel=5,
        )
        return again

    def _evaluated(self) -> Sequence[Record]:
        """The forward passes in evaluation mode, on the first perturbed input on which the model runs."""
        while True:
            try:
                return record(self._model, self._inputs, training=False)
            except TuckertreeError:
                other = next(self._others, None)
                if other is None:
                    raise
                self._inputs[1] = other
                self._state.restore()

    def _reason(self, name: str, found: str) -> str:
        """Why a layer must stay, given in what the copy differs."""
        layer = self._model.get_submodule(name)
        place = kept_elsewhere(self._model, layer)
        if place is not None:
            return f"its weight is used apart from it, too: {place}"
        self._state.restore()
        self._records()
        if self._state.has_changed(weight_of(layer)):
            return "the model's forward writes into its weight"
        return f"the model does something else with a chain in its place: {found}"

    def _not_copied(self, found: str) -> str:
        """That the model cannot be compressed, and what its copy has in common with it."""
        self._state.restore()
        place = shared(self._model, copy_model(self._model))
        if place is None:
            self._records()
            changed = self._state.restore()
            place = next((path for path in changed if ", variable " in path), None)
        because = (
            f"both use {place}" if place else "it seems to reach back into the original, or to keep a count"
        )
        return f"the model cannot be compressed: a copy of it does something else ({found}); {because}"


def check_result(compressed: nn.Module, plan: Plan, example_inputs: ExampleInputs) -> None:
    """See that a compressed model runs, and has a chain in every place that the plan says.

    Raises
    ------
    TuckertreeError
        If it does not.

    Warns
    -----
    ProbeWarning
        If it does not call one of them.
    """
    idle = {layer.name: compressed.get_submodule(layer.name) for layer in plan.compressed}
    for name, module in idle.items():
        if not isinstance(module, Chain):
            raise TuckertreeError(
                f"compressed, the model has a {type(module).__name__} at {name}; exclude it"
            )
    try:
        with preserved(compressed):
            for name, module in list(idle.items()):
                module.register_forward_pre_hook(lambda *_, name=name: idle.pop(name, None) and None)
            run(compressed, example_inputs)
    except TuckertreeError as error:
        raise TuckertreeError(
            f"compressed, {error}; it seems to access attributes of a layer that a chain lacks; exclude that layer"
        ) from error
    if idle:  # with the layers' own results in their places it did: values lead it elsewhere now
        warn(
            f"compressed, the model takes another path on the example input: it does not call {', '.join(idle)}",
            ProbeWarning,
            stacklevel=3,
        )
