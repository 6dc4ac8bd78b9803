"""Calibration of an ONNX model: what its layers see, from images run through ONNX Runtime.

The values in the middle of a graph are made outputs of it, a few layers at a time, so memory is bounded. Layers
are fitted as a torch network's are (:mod:`tuckertree.calibration.correct`): in passes, each to the inputs that it
gets in the network as compressed so far and the outputs it gave in the original one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from functools import partial
from math import ceil, prod
from typing import Any

import torch
from torch import nn

from tuckertree._base.errors import TuckertreeError
from tuckertree._base.progress import ProgressCallback, no_progress
from tuckertree.calibration import Calibration, CalibrationData, KroneckerMetric
from tuckertree.calibration.fitting import Fitter, default_ridge
from tuckertree.calibration.kept import Changeable
from tuckertree.calibration.metrics import InputSum
from tuckertree.calibration.moments import MEMORY, POSITIONS, Captured, chunks_within, warn_of_few
from tuckertree.calibration.pairs import Seen, gather_pairs
from tuckertree.calibration.sensitivity import ERRORS, interpolated, picks_near, whitened_chain
from tuckertree.core.layers import Chain
from tuckertree.measure import ExampleInputs
from tuckertree.network.onnx.agreement import compare_outputs
from tuckertree.network.onnx.files import OnnxFile
from tuckertree.network.onnx.graph import Graph
from tuckertree.network.onnx.inputs import Feed, as_feed, fixed_batch, is_divisible, samples_from, samples_of
from tuckertree.network.onnx.layers import OnnxLayer, Skeleton
from tuckertree.network.onnx.nodes import attributes_of
from tuckertree.network.onnx.rewriting import rewrite
from tuckertree.network.onnx.rows import choosing_values, control_flow_of
from tuckertree.network.onnx.runtime import Session, probing
from tuckertree.network.surgery import apply
from tuckertree.planning import Candidates, Layer, Plan

BATCH = 8
PASSES = 12
"""Layers are fitted in about so many passes: each runs all images through both networks."""
METRIC_IMAGES = 256
SENSITIVITY_IMAGES = 16
_ACTIVATIONS = 256 * 2**20


class OnnxCalibration(Calibration):
    """Calibration inputs in batches that a model takes, cut along the axes that its file leaves open as the batch."""

    def __init__(self, source: CalibrationData, graph: Graph) -> None:
        super().__init__(source, batch_size=fixed_batch(graph) or BATCH)
        self._graph = graph

    def _size(self, inputs: ExampleInputs) -> int:
        return samples_of(as_feed(inputs, self._graph))

    def _cut(self, inputs: ExampleInputs, start: int, length: int) -> ExampleInputs:
        feed = as_feed(inputs, self._graph)
        if start == 0 and length == samples_of(feed):
            return feed
        if not is_divisible(feed, self._graph):
            if start == 0 and samples_of(feed) <= self.batch_size:
                return feed
            raise TuckertreeError(
                f"a calibration batch of {samples_of(feed)} samples cannot be divided: another axis of the inputs has "
                f"the same size and no name in the file; give batches of at most {self.batch_size}"
            )
        return samples_from(feed, self._graph, range(start, start + length))


def feeds_of(images: Calibration, graph: Graph, count: int | None = None) -> Iterator[Feed]:
    """Go through (at most ``count``) images; what does not fill a batch of prescribed size is left out.

    Raises
    ------
    TuckertreeError
        If they do not belong to the model, or do not fill one batch.
    """
    prescribed, given = fixed_batch(graph), False
    for inputs in images if count is None else images.part(0, max(count, prescribed or 0)):
        feed = as_feed(inputs, graph)
        if prescribed is None or samples_of(feed) == prescribed:
            given = True
            yield feed
    if not given:
        raise TuckertreeError(f"the model takes {prescribed} samples at a time; there are fewer images")


def onnx_metrics(
    file: OnnxFile,
    graph: Graph,
    layers: Sequence[OnnxLayer],
    images: Calibration,
    *,
    tick: ProgressCallback = no_progress,
) -> dict[str, KroneckerMetric]:
    """Roots of the second moments of layers' input channels, by name: the metric of the objective ``moments``.

    Raises
    ------
    TuckertreeError
        If the model does not run on the images, or no activation is finite.
    """
    metrics: dict[str, KroneckerMetric] = {}
    blind: list[str] = []
    chunks = list(_within_activations(layers, images.batch_size))
    for number, chunk in enumerate(chunks):
        sums = {found.layer.name: InputSum(found.layer) for found in chunk}
        probe = Probe(file, graph, chunk)
        for done, feed in enumerate(feeds_of(images, graph, METRIC_IMAGES)):
            for seen in probe.capture(feed):
                sums[seen.name].add(seen.x)
            tick(f"metrics {number + 1}/{len(chunks)}", done + 1, min(images.batches, METRIC_IMAGES) or 1)
        metrics.update({name: total.metric() for name, total in sums.items()})
        blind += [name for name, total in sums.items() if total.is_blind]
    if layers and len(blind) == len(layers):
        raise TuckertreeError(f"{blind[0]}: the calibration images give NaN or infinite activations")
    return metrics


def calibrate_onnx(
    file: OnnxFile,
    graph: Graph,
    layers: Mapping[str, OnnxLayer],
    skeleton: Skeleton,
    plan: Plan,
    images: Calibration,
    *,
    passes: int = PASSES,
    memory: int = MEMORY,
    positions: int = POSITIONS,
    seed: int = 0,
    notes: MutableMapping[str, str] | None = None,
    tick: ProgressCallback = no_progress,
) -> dict[str, Chain]:
    """Chains of a plan, by name, with factors and biases fitted to images.

    Parameters
    ----------
    skeleton
        Weights of the layers; not changed.
    stages
        About so many passes over the images, more where the memory asks for it.
    memory, positions, seed
        As :func:`~tuckertree.calibration.moments.collect_moments`.
    notes
        As of :func:`~tuckertree.calibration.calibrate`.

    Raises
    ------
    TuckertreeError
        If the model does not run on the images, or no activation is finite.

    Warns
    -----
    CalibrationWarning
        If there are few images, layers too large for the memory, or such as see nothing that can be used; those
        keep the plain decomposition.
    """
    planned = [layers[layer.name] for layer in plan.compressed]
    own = Skeleton({found.layer.name: skeleton.get_submodule(found.layer.name) for found in planned})
    result = apply(own, plan, tick=tick)
    chains = chains_of(result, plan)
    names = frozenset(chains)
    biases = frozenset(found.layer.name for found in planned if found.layer.spec.bias)
    fitter = Fitter(own, result, plan, Changeable(names, biases), default_ridge(len(images)))
    fitted: dict[str, Chain] = {}
    work = list(_passes(planned, passes, memory, images.batch_size))
    for number, some in enumerate(work):
        original = Probe(file, graph, some)
        compressed = original
        if fitted:
            smaller = Graph(rewrite(graph, layers, fitted, biases=True))
            compressed = Probe(file, smaller, some, original)

        def look(
            _: Sequence[Layer],
            alone: bool,
            original: Probe = original,
            compressed: Probe = compressed,
            number: int = number,
        ) -> Iterator[Seen]:
            for done, feed in enumerate(feeds_of(images, graph)):
                before = original.capture(feed)
                yield before, before if alone or compressed is original else compressed.capture(feed)
                tick(f"fitting {number + 1}/{len(work)}", done + 1, images.batches)

        part = [found.layer for found in some]
        fitter.fit(part, gather_pairs(part, look, positions=positions, seed=seed))
        fitted.update({found.layer.name: chains[found.layer.name] for found in some})
    fitter.check()
    if notes is not None:
        notes.update(fitter.notes)
    warn_of_few(fitter.few)
    return chains


def onnx_sensitivity(
    file: OnnxFile,
    graph: Graph,
    layers: Mapping[str, OnnxLayer],
    skeleton: Skeleton,
    candidates: Mapping[str, Candidates],
    metrics: Mapping[str, KroneckerMetric],
    images: Calibration,
    *,
    errors: Sequence[float] = ERRORS,
    count: int = SENSITIVITY_IMAGES,
    tick: ProgressCallback = no_progress,
) -> dict[str, Candidates]:
    """Candidates whose loss is the squared relative change of the model's outputs, measured by trying each.

    As :func:`tuckertree.calibration.measure_sensitivity`, with a model written and loaded for each try.

    Raises
    ------
    TuckertreeError
        If the model does not run on the images.
    """
    feeds = list(feeds_of(images, graph, count))
    before = probing(graph.proto, file.folder, graph.outputs)
    expected = [before.run(feed) for feed in feeds]
    found = {}
    for done, (name, own) in enumerate(candidates.items()):
        curve = [(0.0, 0.0)]
        for pick in picks_near(own, errors):
            chain = whitened_chain(
                skeleton, layers[name].layer, own.methods[pick], own.ranks[pick], metrics[name]
            )
            tried = probing(rewrite(graph, layers, {name: chain}), file.folder, graph.outputs)
            change = compare_outputs(expected, (tried.run(feed) for feed in feeds), before.shapes)
            if change.error is None:
                raise TuckertreeError(
                    "objective 'sensitivity' needs outputs of floating-point numbers whose size does not depend "
                    "on values; use moments"
                )
            curve.append((float(own.error[pick]), change.error**2))
        found[name] = own.measured(partial(interpolated, curve=curve))
        tick("sensitivity", done + 1, len(candidates))
    return found


class Probe:
    """Runs a model as far as some layers' inputs; the compressed one beside that of the ``original``."""

    def __init__(
        self, file: OnnxFile, graph: Graph, layers: Sequence[OnnxLayer], original: Probe | None = None
    ) -> None:
        self._layers, self._compressed = layers, original is not None
        own = {found.layer.name: choosing_values(graph, found.node.input[0]) for found in layers}
        self._choosing: dict[str, tuple[str, ...]] = original._choosing if original else own
        chosen = (name for names in self._choosing.values() for name in names)
        values = [found.node.input[0] for found in layers if found.node.input[0] not in graph.inputs]
        wanted = list(dict.fromkeys([*values, *(n for n in chosen if graph.producer(n) is not None)]))
        self._session: Session | None = probing(graph.proto, file.folder, wanted) if wanted else None

    def capture(self, feed: Feed) -> list[Captured]:
        """Input and output size of each layer, and the control flow that chose its rows.

        Raises
        ------
        TuckertreeError
            If the model does not run on the feed, or the feed has another size than the example input.
        """
        seen = {**feed, **(self._session.run(feed) if self._session else {})}
        return [self._captured(found, seen) for found in self._layers]

    def _captured(self, found: OnnxLayer, seen: Mapping[str, Any]) -> Captured:
        layer = found.layer
        x = torch.from_numpy(seen[found.node.input[0]])
        x = (x.mT if attributes_of(found.node).get("transA") else x).to(torch.float32)
        control_flow = control_flow_of(self._choosing[layer.name], seen, compressed=self._compressed)
        if not layer.spec.order:
            return Captured(layer.name, x, (prod(x.shape[1:-1]),), control_flow)
        (use,) = layer.calls
        if tuple(x.shape[2:]) != use.size_in:
            raise TuckertreeError(
                f"{layer.name}: the calibration images give {list(x.shape[2:])} here, the example input "
                f"{list(use.size_in)}; they must be of one size"
            )
        return Captured(layer.name, x, use.size_out, control_flow)


def chains_of(result: nn.Module, plan: Plan) -> dict[str, Chain]:
    """Chains of a plan that was applied, by name."""
    chains = {layer.name: result.get_submodule(layer.name) for layer in plan.compressed}
    return {name: chain for name, chain in chains.items() if isinstance(chain, Chain)}


def _passes(layers: Sequence[OnnxLayer], count: int, memory: int, batch: int) -> Iterator[list[OnnxLayer]]:
    """Consecutive layers in about ``count`` passes, whose moments and inputs fit in memory."""
    by_name = {found.layer.name: found for found in layers}
    most = ceil(len(layers) / count)
    plain: list[Layer] = [found.layer for found in layers]
    for chunk in chunks_within(plain, memory, copies=2):
        for start in range(0, len(chunk), most):
            part = [by_name[layer.name] for layer in chunk[start : start + most]]
            yield from _within_activations(part, batch)


def _within_activations(layers: Sequence[OnnxLayer], batch: int) -> Iterator[list[OnnxLayer]]:
    """Consecutive layers whose inputs for one batch fit in memory."""
    chunk: list[OnnxLayer] = []
    left = _ACTIVATIONS
    for found in layers:
        size = sum(4 * batch * found.layer.spec.in_channels * prod(use.size_in) for use in found.layer.calls)
        if chunk and size > left:
            yield chunk
            chunk, left = [], _ACTIVATIONS
        chunk.append(found)
        left -= size
    if chunk:
        yield chunk
