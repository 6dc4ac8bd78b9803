"""The runtime `triton` by Triton's interpreter on the CPU: what it chooses, keeps and refuses."""

import sys
from contextlib import contextmanager, nullcontext
from unittest.mock import Mock

import pytest
import torch
from torch import nn

import tuckertree as tt
from tests.runtimes.test_epilogues import chain, lively
from tests.tools.cli.test_cli import tuckertree
from tuckertree._base.errors import TuckertreeError, UsageError
from tuckertree.core.layers import LayerSpec, fusion_variants
from tuckertree.latency.network import NetworkBenchmark
from tuckertree.latency.time_model import RuntimeBenchmark
from tuckertree.runtimes import contract, get_runtime, triton_runtime
from tuckertree.runtimes.epilogues import ChainWithEpilogue
from tuckertree.runtimes.triton_chain import FusedChain
from tuckertree.runtimes.triton_runtime import TritonRuntime, captured

pytestmark = pytest.mark.usefixtures("interpreted")


class Clock:
    """Times as they are given: of torch's layers and of the kernels."""

    def __init__(self, *times):
        self.times, self.asked = times, 0

    def __call__(self, runs):
        self.asked += 1
        assert all(map(callable, runs))
        return self.times


FAST, SLOW = (2.0, 1.0), (1.0, 2.0)


def runtime(*times):
    return TritonRuntime(1, "cpu", timer=Clock(*times))


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = (chain(method="svd", ranks=(5,)) for _ in range(2))
        self.bn1, self.bn2 = nn.BatchNorm2d(16), nn.BatchNorm2d(16)

    def forward(self, x):
        out = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(out)) + x)


def network(*blocks):
    torch.manual_seed(0)
    head = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 3))
    return lively(nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), *(block() for block in blocks), *head))


def fill(module):
    for p in module.parameters():
        nn.init.normal_(p)
    return module.eval()


def kinds(runnable, kind):
    return sum(isinstance(module, kind) for module in runnable.network.modules())


@torch.inference_mode()
def agrees(runnable, model, x, **tolerance):
    torch.testing.assert_close(runnable.run([x]), [model(x)], **tolerance)
    torch.testing.assert_close(runnable.bind([x])(), model(x), **tolerance)


@pytest.mark.parametrize(("times", "counts"), [(FAST, (4, 0)), (SLOW, (0, 4))])
def test_each_distinct_chain_is_timed_once_and_the_faster_form_kept(times, counts):
    model, x, ours = network(Block, Block), torch.randn(2, 3, 4, 5), runtime(*times)
    for _ in range(2):
        loaded = ours.load(model, [x])
        assert (kinds(loaded, FusedChain), kinds(loaded, ChainWithEpilogue)) == counts
        assert kinds(loaded, nn.BatchNorm2d) == 0
        agrees(loaded, model, x)
    assert ours._timer.asked == 2  # with a residual and without
    ours.load(model, [x[:1]])
    assert ours._timer.asked == 4


def test_equal_times_are_no_reason_to_leave_torch():
    assert kinds(runtime(1.0, 1.0).load(network(Block), [torch.randn(1, 3, 3, 3)]), FusedChain) == 0


def test_the_type_of_the_network_is_kept():
    model, x = network(Block).half(), torch.randn(1, 3, 3, 3).half()
    loaded = runtime(*FAST).load(model, [x])
    assert kinds(loaded, FusedChain) == 2
    assert {p.dtype for p in loaded.network.parameters()} == {torch.float16}
    agrees(loaded, model, x, rtol=0.02, atol=0.02)


def test_layers_alone_as_latency_targets_time_them_are_run_by_the_kernels(tmp_path):
    layer = chain().eval()
    spec, ours = LayerSpec.of(nn.Conv2d(16, 16, 3, padding=1)), runtime(*FAST)
    *variants, dense = fusion_variants(layer.stages, layer.cuts)
    for variant in variants[1:3]:
        plain = fill(nn.Sequential(*(stage.spec.build() for stage in variant.stages)))
        assert kinds(ours.load(plain, [torch.randn(1, 16, 3, 3)]), FusedChain) == 1
    assert kinds(ours.load(layer, [torch.randn(1, 16, 3, 3)]), FusedChain) == 1
    times = RuntimeBenchmark(ours, torch.float32, repeats=5)(
        (1, spec.in_channels, 3, 3), [dense, variants[4]]
    )
    assert all(time.seconds > 0 for time in times)


def test_plans_for_networks_are_timed_on_it():
    torch.manual_seed(0)
    model = lively(nn.Sequential(nn.Conv2d(16, 32, 3, bias=False), nn.BatchNorm2d(32), nn.ReLU()))
    x, ours = torch.randn(1, 16, 6, 6), runtime(*FAST)
    plan = tt.plan(model, x, tt.Budget(params=0.5))
    benchmark = NetworkBenchmark(model, x, ours)
    assert benchmark.planned(plan)().shape == (1, 32, 4, 4)
    assert ours._timer.asked == 1


def test_chains_are_contracted_for_it():
    model = nn.Sequential(chain(method="svd", ranks=(5,)), nn.ReLU()).eval()
    found = contract(model, runtime(*FAST), torch.randn(1, 16, 3, 3), repeats=5)
    assert [name for name, _ in found.layers[0].times] == ["dense", "3x3, 1x1"]


def test_where_outputs_would_differ_torch_runs_it(monkeypatch):
    model, x = network(Block), torch.randn(1, 3, 3, 3)
    monkeypatch.setattr(triton_runtime, "with_epilogues", lambda *_: network(Block, Block))
    with pytest.warns(UserWarning, match="run by torch's layers, .*: outputs would differ by"):
        loaded = runtime(*FAST).load(model, [x])
    agrees(loaded, model, x)
    monkeypatch.setattr(triton_runtime, "with_epilogues", lambda model, _: nn.Sequential(model, nn.ReLU()))
    wide = nn.Sequential(network(Block), nn.Hardtanh(-9, -8)).eval()
    with pytest.warns(UserWarning, match="outputs would differ"):
        runtime(*FAST).load(wide, [x])


def test_where_the_kernels_fail_torch_runs_it():
    def fails(_):
        raise RuntimeError("out of resources\nat line 3")

    model, x = network(Block), torch.randn(1, 3, 3, 3)
    with pytest.warns(UserWarning, match=r"^a chain is run by torch's layers, .*: out of resources$"):
        loaded = TritonRuntime(1, "cpu", timer=fails).load(model, [x])
    agrees(loaded, model, x)
    assert (kinds(loaded, ChainWithEpilogue), kinds(loaded, nn.BatchNorm2d)) == (2, 0)


class Viewing(nn.Module):
    """Its layout in memory is not torch's to change."""

    def __init__(self):
        super().__init__()
        self.chain = chain()

    def forward(self, x):
        return self.chain(x).view(len(x), -1)


def test_a_network_that_needs_its_layout_is_run_as_it_is():
    model, x = Viewing().eval(), torch.randn(2, 16, 3, 3)
    with pytest.warns(UserWarning, match="run by torch's layers"):
        loaded = runtime(*FAST).load(model, [x])
    agrees(loaded, model, x)


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_values_that_are_not_finite_are_no_difference():
    model, x = network(Block), torch.randn(2, 3, 3, 3)
    x[0] = torch.inf
    assert kinds(runtime(*FAST).load(model, [x]), FusedChain) == 2


def test_on_a_cpu_nothing_is_captured():
    calls = []
    assert captured(lambda: calls.append(1) or len(calls), "cpu", times=3)() == 3


class Graph:
    """In place of a CUDA graph."""

    replayed = 0

    def replay(self):
        self.replayed += 1


@pytest.mark.parametrize("works", [True, False])
def test_what_cannot_be_captured_is_called(monkeypatch, works):
    graph, calls = Graph(), []

    @contextmanager
    def capture(_):
        calls.clear()
        yield
        if not works:
            raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: graph)
    monkeypatch.setattr(torch.cuda, "graph", capture)
    for name in ("device", "stream"):
        monkeypatch.setattr(torch.cuda, name, lambda *_: nullcontext())
    for name in ("Stream", "current_stream", "synchronize"):
        monkeypatch.setattr(torch.cuda, name, Mock())
    run = captured(lambda: calls.append(1) or "output", "cuda", times=3)
    assert len(calls) == 3
    assert [run(), run()] == ["output", "output"]
    assert (graph.replayed, len(calls)) == ((2, 3) if works else (0, 9))


def test_where_there_is_no_gpu_it_is_refused_in_one_line():
    with pytest.raises(UsageError, match=r"^the runtime triton runs on the cuda alone, not on cpu$"):
        get_runtime("triton")
    if not torch.cuda.is_available():
        with pytest.raises(UsageError, match=r"^device 'cuda' cannot be used here: [^\n]*$"):
            get_runtime("triton", device="cuda")
    for device in ("cpu", "cuda:99"):
        code, out, err = tuckertree("bench", "demo", "--runtime", "triton", "--device", device)
        assert (code, out, len(err.strip().splitlines())) == (2, "", 1)


def test_without_triton_it_says_where_it_comes_from(monkeypatch):
    monkeypatch.setitem(sys.modules, "triton", None)
    with pytest.raises(TuckertreeError, match=r"^the package triton is not installed; it comes with PyTorch"):
        _ = runtime(*FAST).version
