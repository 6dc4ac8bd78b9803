"""A machine of known speed: times of forms by a formula, in place of a benchmark."""

import torch

from tuckertree.core.layers import Scaling
from tuckertree.latency import TimeModel
from tuckertree.latency.fit import work
from tuckertree.measure import Timing
from tuckertree.planning import Call, Options, survey_candidates, take_inventory
from tuckertree.runtimes import CandidateTime

# Seconds for: the call, a stage, a MAC of a stage pointwise, along the first, another and all axes, a number,
# a MAC of a depthwise stage.
SPEED = torch.tensor([2e-6, 5e-7, 1.2e-11, 1.6e-11, 1.4e-11, 1e-11, 1e-11, 4e-11], dtype=torch.float64)


def seconds_of(form, spec, call):
    return float((work(spec, call, Scaling.fixed(form.stages), torch.ones(1, 0)) @ SPEED).sum())


def machine(spoilt=0):
    """A benchmark, the first ``spoilt`` of whose measurements beside the dense one are far off, and unsteady."""

    def benchmark(shape, forms):
        spec = forms[0].stages[0].spec
        size = tuple(shape[2:]) if spec.order else (shape[1] if len(shape) > 2 else 1,)
        call = Call(shape[0], size, _size_out(spec, shape) if spec.order else size)
        dense = seconds_of(forms[0], spec, call)
        times = []
        for number, form in enumerate(forms):
            ratio = seconds_of(form, spec, call) / dense
            if 0 < number <= spoilt:
                times.append(CandidateTime(dense * ratio / 9, Timing(ratio / 9, ratio / 10, ratio)))
            else:
                times.append(CandidateTime(dense * ratio, Timing(ratio, ratio, ratio)))
        return times

    return benchmark


def _size_out(spec, shape):
    with torch.no_grad():
        return tuple(spec.build(device="meta")(torch.empty(shape, device="meta")).shape[2:])


def timed(model, image, benchmark=None, seconds=5e-6, **options):
    """Inventory with the network's time, candidates with theirs, and the time model."""
    options = Options(**{"round_to": 4, **options})
    inventory = take_inventory(model, image)
    timer = TimeModel(benchmark or machine(), methods=options.of_layers)
    timer.measure([layer for layer in inventory.layers if options.method(layer)[0] != "dense"])
    candidates = survey_candidates(model, inventory, options, timer=timer)
    dense = sum(float(layer.seconds.max()) for layer in candidates.values())
    inventory = type(inventory)(inventory.layers, inventory.parameters, inventory.macs, dense + seconds)
    return inventory, candidates, timer, options
