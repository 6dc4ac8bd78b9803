"""What every runtime must do, as tests."""

from __future__ import annotations

import copy
import json
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from tuckertree._base.errors import TuckertreeError, UsageError
from tuckertree.core.layers import factorize
from tuckertree.measure import time_in_turns
from tuckertree.runtimes import LatencyCache, Runnable, Runtime, find_runtime, get_runtime, time_candidates
from tuckertree.runtimes.runtime import reference_outputs

Case = tuple[nn.Module, tuple[Tensor, ...]]


class RuntimeContract:
    """Tests of a runtime; pytest runs them for each subclass whose name begins with ``Test``.

    ::

        class TestMine(RuntimeContract):
            runtime = "mine"

    Attributes
    ----------
    runtime
        Its name, which is registered (:func:`~tuckertree.runtimes.register_runtime`).
    tolerance
        How far outputs may be from those of eager torch, of the largest of them.
    """

    runtime: ClassVar[str]
    tolerance: ClassVar[float] = 1e-4

    def make(self, threads: int = 1) -> Runtime:
        """The runtime on the CPU."""
        return get_runtime(self.runtime, threads=threads)

    def cases(self) -> list[Case]:
        """Networks in evaluation mode, and what each is called with."""
        generator = torch.Generator().manual_seed(0)
        image = torch.randn(2, 3, 9, 8, generator=generator)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            conv = nn.Conv2d(3, 8, 3, padding=1)
            chain = factorize(nn.Conv2d(8, 8, 3, padding=1), "ht2", (4, 6, 4))
            grouped = nn.Conv2d(8, 8, 3, stride=2, groups=8)
            after = (nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 12, 5))
            net = nn.Sequential(conv, nn.ReLU(), chain, grouped, *after)
            several = _Several()
        return [(net.eval(), (image,)), (several.eval(), (image, image[:, :1] + 1))]

    def test_it_is_found_by_its_name_and_says_what_it_is(self) -> None:
        """Registered, with devices of torch, a version and hardware in one line each."""
        kind, runtime = find_runtime(self.runtime), self.make()
        assert kind.name == self.runtime == runtime.name
        assert isinstance(runtime, kind)
        assert [torch.device(name).type for name in kind.devices] == list(kind.devices)
        for text in (runtime.version, runtime.hardware):
            assert len(text.splitlines()) <= 1
        assert runtime.version

    def test_outputs_are_those_of_eager_torch(self) -> None:
        """Every tensor that a network returns, in order."""
        for model, inputs in self.cases():
            self._agrees(self._loaded(model, inputs), model, inputs)

    def test_a_bound_network_runs_as_often_as_one_likes(self) -> None:
        """And what is run in between on other inputs does not matter."""
        for model, inputs in self.cases():
            runnable = self._loaded(model, inputs)
            once = runnable.bind(inputs)
            with self.make().active():
                once()
                self._agrees(runnable, model, [-x for x in inputs])
                once()
            self._agrees(runnable, model, inputs)

    def test_the_model_and_its_inputs_are_left_alone(self) -> None:
        """Weights, buffers, modes and inputs stay as they are; a model in training mode is run in evaluation."""
        for model, inputs in self.cases():
            state, own = copy.deepcopy(model.state_dict()), [x.clone() for x in inputs]
            expected = reference_outputs(model, inputs)
            model.train()
            found = self._loaded(model, inputs).run(inputs)
            assert all(module.training for module in model.modules()), "the mode of the model was changed"
            assert all(torch.equal(model.state_dict()[name], x) for name, x in state.items())
            assert all(map(torch.equal, inputs, own)), "the inputs were changed"
            self._close(found, expected)

    def test_another_batch_is_computed_or_refused(self) -> None:
        """Never computed as something else."""
        for model, inputs in self.cases():
            more = [torch.cat([x, x[:1]]) for x in inputs]
            try:
                found = self._loaded(model, inputs).run(more)
            except Exception:  # noqa: S112  (the library's own, of any class)
                continue
            self._close(found, reference_outputs(model, more))

    def test_small_modules_loaded_together_are_as_each_by_itself(self) -> None:
        """Also where two of them share a weight."""
        x = self.cases()[0][1][0]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            first, second = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1)
            second.bias = first.bias
            modules = [first, second, nn.Sequential(nn.Conv2d(3, 2, 3), nn.ReLU())]
        for module, runnable in zip(modules, self.make().load_branches(modules, [x]), strict=True):
            self._agrees(runnable, module, [x])

    def test_in_other_precisions_it_computes_about_the_same(self) -> None:
        """With times under another key; a precision that it does not have is refused."""
        kind, runtime = find_runtime(self.runtime), self.make()
        assert runtime.precision == kind.precisions[0] == "fp32"
        _refused(UsageError, get_runtime, self.runtime, precision="int1")
        _refused(UsageError, runtime.at, "int1")
        for precision in kind.precisions[1:]:
            other = get_runtime(self.runtime, threads=1, precision=precision)
            assert other.precision == precision
            assert {**other.key} == {**runtime.key, "precision": precision}
            assert other.at("fp32").key == runtime.key
            for model, inputs in self.cases():
                found, expected = other.load(model, inputs).run(inputs), reference_outputs(model, inputs)
                for a, b in zip(found, expected, strict=True):
                    assert float((a - b).norm()) < 0.1 * float(b.norm())

    def test_files_that_it_writes_compute_the_same(self) -> None:
        """With a free batch for any batch."""
        runtime = self.make()
        if not runtime.format:
            return
        model, inputs = self.cases()[0]
        with tempfile.TemporaryDirectory() as folder:
            fixed, free = (Path(folder) / f"{name}{runtime.suffix}" for name in ("fixed", "free"))
            runtime.write(model, inputs, fixed)
            runtime.write(model, inputs, free, "batch")
            self._agrees(runtime.open(fixed), model, inputs)
            for some in (inputs, [x[:1] for x in inputs], [torch.cat([x, x]) for x in inputs]):
                self._agrees(runtime.open(free), model, some)

    def test_files_that_it_cannot_read_are_refused(self) -> None:
        """Of another kind, damaged or absent."""
        runtime = self.make()
        with tempfile.TemporaryDirectory() as folder:
            for name in {"net.unknown", f"net{runtime.suffix}", "net.onnx"}:
                _refused(TuckertreeError, runtime.open, Path(folder) / f"no-{name}")
                path = Path(folder) / name
                path.write_bytes(b"no network\n" * 9)
                _refused(TuckertreeError, runtime.open, path)

    def test_it_has_the_threads_it_was_given(self) -> None:
        """Where the library says how many it has; and torch has its own again afterwards."""
        before = torch.get_num_threads()
        model, inputs = self.cases()[0]
        for threads in (1, 2):
            runtime = self.make(threads)
            with runtime.active():
                runnable = runtime.load(model, inputs)
                runnable.bind(inputs)()
                assert runnable.threads in (threads, None)
            assert torch.get_num_threads() == before

    def test_times_are_positive_and_kept_under_what_they_depend_on(self) -> None:
        """Version, threads and device are in the key of the cache."""
        kind, runtime = find_runtime(self.runtime), self.make()
        model, inputs = self.cases()[0]
        with runtime.active():
            ((seconds, *_),) = time_in_turns([runtime.load(model, inputs).bind(inputs)], repeats=5)
        assert seconds > 0
        with tempfile.TemporaryDirectory() as folder:
            cache = LatencyCache(Path(folder) / "times.json")
            modules = [nn.Conv2d(3, 4, 3), nn.Conv2d(3, 2, 1)]
            times = time_candidates(modules, inputs[0], runtime, repeats=5, cache=cache)
            assert all(time.seconds > 0 for time in times)
            assert cache.path.is_file()
        changed = {"version": "another", "hardware": "a GPU", "name": "another"}
        others: list[Any] = [type("Other", (kind,), {name: value}) for name, value in changed.items()]
        keys = [runtime.key, self.make(2).key, *(other(1, "cpu").key for other in others)]
        assert len({json.dumps(key, sort_keys=True) for key in keys}) == len(keys)
        assert self.make().key == runtime.key

    def test_devices_that_it_does_not_run_on_are_refused(self) -> None:
        """In one line, before anything is loaded."""
        strange = ["abacus", *({"cuda", "mps", "xpu"} - set(find_runtime(self.runtime).devices))]
        for device in strange:
            _refused(UsageError, get_runtime, self.runtime, device=device)
        _refused(UsageError, get_runtime, self.runtime, threads=0)

    def _loaded(self, model: nn.Module, inputs: Sequence[Tensor]) -> Runnable:
        return self.make().load(model, inputs)

    def _agrees(self, runnable: Runnable, model: nn.Module, inputs: Sequence[Tensor]) -> None:
        self._close(runnable.run(inputs), reference_outputs(model, inputs))

    def _close(self, found: Sequence[Tensor], expected: Sequence[Tensor]) -> None:
        assert len(found) == len(expected)
        for a, b in zip(found, expected, strict=True):
            assert a.device.type == "cpu"
            torch.testing.assert_close(a, b, rtol=0, atol=self.tolerance * float(b.abs().max()))


class _Several(nn.Module):
    """Two inputs, and outputs in a nesting."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.BatchNorm2d(4)

    def forward(self, x: Tensor, y: Tensor) -> dict[str, object]:
        z = self.norm(self.conv(x)) + y.mean((2, 3), keepdim=True)
        return {"sum": z, "rest": [z.mean((2, 3)), y - 1]}


def _refused(
    kind: type[TuckertreeError], call: Callable[..., object], *given: object, **named: object
) -> None:
    """Check that a call is refused, and in one line."""
    try:
        call(*given, **named)
    except kind as error:
        said = str(error)
    else:
        raise AssertionError(f"nothing was refused, where a {kind.__name__} was due")
    assert said.strip()
    assert "\n" not in said, f"more than one line: {said}"
