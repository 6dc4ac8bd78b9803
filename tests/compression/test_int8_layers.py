"""The precision of each layer in plans, folders and results: sensitive layers stay in fp32 while time allows."""

import json
import re
import sys

import pytest
import torch
from torch import nn

import tuckertree as tt
import tuckertree.compression.int8 as int8_module
from tests.io.export.test_mixed import EXAMPLE, IMAGES, OUTLIER, Branches, Tokens, network
from tests.tools.cli.test_cli import tuckertree
from tuckertree.latency import LatencyTarget, NetworkBenchmark
from tuckertree.latency import target as target_module
from tuckertree.measure import Timing
from tuckertree.measure.environment import has_vnni
from tuckertree.planning import Plan
from tuckertree.runtimes.quantization import doubts_of_cpu

pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
SENSITIVE = {"4", "6"}


@pytest.fixture
def machine(monkeypatch):
    """8 bits take half of the time, and each layer in single precision a tenth more; nothing is really timed."""
    asked = []

    def of_file(_, path):
        text = path.read_bytes()
        fp32 = sum(f"{number}.weight_quantized".encode() not in text for number in (0, 2, 4, 6, 8, 12))
        asked.append(fp32)
        return Timing(*[0.5 + fp32 / 10] * 3)

    monkeypatch.setattr(NetworkBenchmark, "__call__", lambda *_: Timing(0.5, 0.5, 0.5))
    monkeypatch.setattr(NetworkBenchmark, "seconds", lambda _: 1e-3)
    monkeypatch.setattr(NetworkBenchmark, "time_file", of_file)
    return asked


def compress(model, latency, example=EXAMPLE, images=IMAGES, precision="int8", **options):
    rule = tt.Budget(latency=latency, threads=1, precision=precision, **options)
    return tt.compress(model, example, rule, calibration=images, progress=False)


@pytest.mark.parametrize(("latency", "stay"), [("1.4x", 2), ("1.6x", 1), ("1.9x", 0)])
def test_as_many_layers_stay_as_the_target_leaves_time_for(machine, latency, stay):
    result = compress(network(OUTLIER), latency)
    found, plan = result.int8.layers, result.plan
    assert len(found.fp32) == stay
    assert {*found.fp32} <= SENSITIVE
    assert any("more than the 0.1 wanted" in line for line in result.int8.warnings()) == (stay < 2)
    assert (found.distance <= 0.1) == (stay == 2)
    assert {layer.name: layer.precision for layer in plan.layers} == {
        name: "fp32" if name in found.fp32 else "int8" for name in found.layers
    }
    assert plan.latency.measured == pytest.approx(0.5 + stay / 10)
    assert plan.latency.measured <= target_module.TOO_SLOW * plan.latency.target
    assert len(machine) <= 3


def test_a_network_without_sensitive_layers_is_timed_no_more_and_all_in_8_bits(machine):
    result = compress(network(), "1.4x")
    assert result.plan.in_fp32 == ()
    assert machine == []
    assert "all 6 layers in 8 bits" in str(result)


def test_plan_folder_tables_and_commands_say_which_layers_stay(machine, tmp_path):
    result = compress(network(OUTLIER), "1.4x")
    assert Plan.loads(result.plan.dumps()) == result.plan
    assert "2 of 6 layers stay in fp32" in str(result)
    assert re.search(r"^ 4 .* fp32 .*$", str(result), re.MULTILINE)
    path = result.save(tmp_path / "out")
    report = json.loads((path / "report.json").read_text())["int8"]["layers"]
    assert {*report["fp32"]} == SENSITIVE
    assert report["whole"] > 0.3 > 0.1 >= report["distance"]
    options = ("--model", "tests.io.export.test_mixed:network", "--input-size", "3,8,8")
    code, out, _ = tuckertree("inspect", path, "--json", *options)
    assert code == 0
    planned = json.loads(out)["plan"]["layers"]
    assert {each["name"] for each in planned if each.get("precision") == "fp32"} == SENSITIVE
    code, out, _ = tuckertree("export", path, "-o", tmp_path / "net.onnx", *options)
    assert code == 0
    assert "2 of 6 layers in fp32" in out
    assert (tmp_path / "net.onnx").read_bytes() == result.int8.content


def test_what_is_quantized_anew_keeps_its_layers(machine):
    result = compress(network(OUTLIER), "1.6x")
    count = len(machine)
    again = tt.tune(result, network(OUTLIER), IMAGES, steps=1, progress=False)
    assert again.int8.layers.fp32 == result.int8.layers.fp32
    assert not again.int8.layers.losses
    assert len(machine) == count


def test_what_was_taken_is_said_and_why(machine):
    result = compress(network(), "1x", precision="fp32,int8")
    assert "fp32 keeps it as it is; int8" in str(result) or "int8 2.00x faster" in str(result)
    assert "int8 is taken, the others would change nothing" in str(result)


def test_where_fp32_misses_a_target_that_8_bits_keep_the_refusal_says_so(machine, monkeypatch):
    monkeypatch.setattr(
        LatencyTarget, "measure", lambda self, inventory, options, tick: pytest.fail("layers are timed")
    )
    monkeypatch.setattr(NetworkBenchmark, "__call__", lambda self, _: Timing(0.5, 0.5, 0.5))
    from tuckertree.compression.choosing import Choosing
    from tuckertree.latency import LatencyNotKeptError

    def refuse(*_):
        raise LatencyNotKeptError("the target cannot be met", 0.9)

    monkeypatch.setattr(Choosing, "_timed", refuse)
    with pytest.raises(LatencyNotKeptError, match="8 bits alone were measured at 2x and keep it: Budget"):
        compress(network(), "1.9x", precision="fp32")


class FixedBatch(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)

    def forward(self, x):
        return self.conv(x).view(4, 8 * 36)


def test_networks_of_several_inputs_and_of_a_fixed_batch_are_quantized(machine, monkeypatch):
    monkeypatch.setattr(NetworkBenchmark, "time_file", lambda *_: Timing(0.5, 0.5, 0.5))
    torch.manual_seed(0)
    pairs = [(torch.randn(8, 3, 9, 9), torch.randn(8, 2, 9, 9)) for _ in range(4)]
    result = compress(Branches().eval(), "1.4x", tuple(x[:1] for x in pairs[0]), pairs)
    assert result.int8.layers.layers == ("a", "b", "c")
    assert 0 < result.int8.distance < 0.1
    batches = list(IMAGES.split(4))
    result = compress(FixedBatch().eval(), "1.4x", batches[0], batches)
    assert 0 < result.int8.distance < 0.1
    assert result.int8.held_out


@pytest.mark.parametrize(("count", "unseen"), [(48, True), (12, False)])
def test_a_fixed_batch_is_compared_on_images_that_were_not_fitted_to_or_says_so(
    machine, monkeypatch, count, unseen
):
    monkeypatch.setattr(NetworkBenchmark, "time_file", lambda *_: Timing(0.5, 0.5, 0.5))
    used, quantize = {}, int8_module.quantize

    def spied(path, batches, held, **options):
        used["ranges"], used["held"] = (torch.cat([x for (x,) in each]) for each in (batches, held))
        return quantize(path, batches, held, **options)

    monkeypatch.setattr(int8_module, "quantize", spied)
    batches = [*IMAGES[:count].split(4)]
    found = compress(FixedBatch().eval(), "1.4x", batches[0], batches).int8
    assert found.held_out == unseen
    assert ("held out" in found.lines()[0]) == unseen
    assert torch.equal(used["held"], IMAGES[count - 4 : count])
    assert len(used["ranges"]) == found.images == (40 if unseen else 8)


def test_what_is_tuned_at_once_has_the_precisions_of_its_layers_in_the_plan(machine):
    rule = tt.Budget(latency="1.4x", threads=1, precision="int8")
    options = {"calibration": IMAGES, "progress": False, "tune": 1}
    result = tt.compress(Tokens().eval(), EXAMPLE, rule, **options)
    found = result.int8.layers
    assert not found.too_far
    assert {layer.name: layer.precision for layer in result.plan.layers} == {
        name: "fp32" if name in found.fp32 else "int8" for name in found.layers
    }


@pytest.mark.parametrize(
    ("text", "known"),
    [
        ("flags\t\t: fpu sse avx2 avx512_vnni\n", True),
        ("flags\t\t: fpu avx_vnni\n", True),
        ("flags\t\t: fpu sse avx2\n", False),
        ("Features\t: fp asimd\n", None),
        (None, None),
    ],
)
def test_a_cpu_without_vnni_is_known_where_the_system_tells(tmp_path, monkeypatch, text, known):
    file = tmp_path / "cpuinfo"
    if text is not None:
        file.write_text(text)
    monkeypatch.setattr(sys.modules[has_vnni.__module__], "Path", lambda _: file)
    assert has_vnni() is known
    assert len(doubts_of_cpu()) == (known is False)
    assert all("\n" not in doubt for doubt in doubts_of_cpu())
