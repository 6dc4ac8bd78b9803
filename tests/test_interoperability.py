"""A compressed network among other people's tools; docs/interoperability.md lists them with these tests."""

import copy
import pickle
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import tuckertree as tt
from tuckertree.core.layers import Chain

X = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
pytestmark = [
    pytest.mark.usefixtures("fresh_compiler"),
    pytest.mark.filterwarnings("ignore:.*torch.jit"),
]


@pytest.fixture(scope="module")
def result():
    return tt.compress(tt.build("demo"), X[:1], energy=0.5)


@pytest.fixture
def small(result):
    """A compressed ResNet-20 that a test may change."""
    model = copy.deepcopy(result.model)
    assert sum(isinstance(module, Chain) for module in model.modules()) > 10
    return model


@pytest.fixture(scope="module")
def little():
    """A compressed network of three layers, where tools are slow."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 32, 3, stride=2), nn.BatchNorm2d(32), nn.ReLU(), nn.Conv2d(32, 48, 3), nn.ReLU()]
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(48, 10)).eval()
    return tt.compress(model, X, tt.Ranks({"0": 0.8, "3": 0.5})).model


def same(ours, theirs, tolerance=1e-4):
    torch.testing.assert_close(theirs, ours, rtol=tolerance, atol=tolerance * float(ours.abs().max()))


def run_block(page, word, **names):
    """Run the one block of Python of a page that has a word; gives the names it leaves."""
    text = (Path(__file__).parents[1] / "docs" / page).read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
    (code,) = [block for block in blocks if word in block]
    exec(compile(code, page, "exec"), names)
    return names


CONVERSIONS = {
    "copy.deepcopy": lambda model: copy.deepcopy(model),
    "pickle": lambda model: pickle.loads(pickle.dumps(model)),
    "torch.compile": lambda model: torch.compile(model, backend="aot_eager", fullgraph=True),
    "torch.export": lambda model: torch.export.export(model, (X,)).module(),
    "torch.fx": lambda model: torch.fx.symbolic_trace(model),
    "torch.jit.script": lambda model: torch.jit.freeze(torch.jit.script(model)),
    "torch.jit.trace": lambda model: torch.jit.trace(model, X),
    "torch.func": lambda model: (
        lambda x: torch.func.functional_call(model, dict(model.named_parameters()), (x,))
    ),
    "channels last": lambda model: model.to(memory_format=torch.channels_last),
    "another type": lambda model: lambda x: model.double()(x.double()).float(),
    "AveragedModel": lambda model: torch.optim.swa_utils.AveragedModel(model),
}


@pytest.mark.parametrize("convert", CONVERSIONS)
def test_what_torch_makes_of_a_network_computes_the_same(convert, small):
    if convert == "torch.export" and torch.__version__ < "2.7":
        pytest.skip("torch 2.6 exports no program in a process that has compiled others")
    with torch.no_grad():
        expected = small(X)
        same(expected, CONVERSIONS[convert](small)(X))


def test_weights_go_out_and_in_as_a_plain_safetensors_file(result, tmp_path):
    save_file(result.model.state_dict(), tmp_path / "weights.safetensors")
    own = tt.apply(tt.build("demo"), result.plan)
    with torch.no_grad():
        for parameter in own.parameters():
            parameter.zero_()
        own.load_state_dict(load_file(tmp_path / "weights.safetensors"))
        assert torch.equal(own.eval()(X), result.model(X))
        own.load_state_dict(load_file(result.save(tmp_path / "net") / "model.safetensors"))
        assert torch.equal(own(X), result.model(X))


def test_timms_networks_stay_timms(tmp_path):
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    made = timm.create_model("resnet10t", num_classes=10).eval()
    result = tt.compress(made, X[:1], energy=0.7)
    loaded = tt.load(result.save(tmp_path / "net"), into=timm.create_model("resnet10t", num_classes=10))
    with torch.no_grad():
        assert torch.equal(loaded(X), result.model(X))
        assert loaded.forward_features(X).shape[1] == loaded.num_features
        loaded.reset_classifier(0)
        assert loaded(X).shape == (2, loaded.num_features)
    groups = loaded.group_matcher()
    assert groups
    optimizer = pytest.importorskip("timm.optim").create_optimizer_v2(
        loaded, "adamw", lr=1e-3, layer_decay=0.7
    )
    taken = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert taken == {id(p) for p in loaded.parameters()}


def test_torchvisions_networks_give_their_features(tmp_path):
    pytest.importorskip("torchvision")
    extraction = pytest.importorskip("torchvision.models.feature_extraction")
    torch.manual_seed(0)
    result = tt.compress(tt.build("torchvision:resnet18?num_classes=10"), X[:1], tt.Ranks({"layer1.*": 0.5}))
    loaded = tt.load(result.save(tmp_path / "net"))
    features = extraction.create_feature_extractor(loaded, {"layer1.0": "low", "layer4": "high"})
    with torch.no_grad():
        found = features(X)
        same(
            result.model.layer1[0](
                result.model.maxpool(result.model.relu(result.model.bn1(result.model.conv1(X))))
            ),
            found["low"],
        )
        assert found["high"].shape[1] == 512


def test_two_processes_of_ddp_take_the_step_of_one(tmp_path, result):
    torch.save(result.model, tmp_path / "model.pt")
    processes = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "tests.one_step_of_ddp", str(tmp_path), str(rank)],
            cwd=Path(__file__).parents[1],
        )
        for rank in range(2)
    ]
    assert [process.wait(timeout=900) for process in processes] == [0, 0]
    model = copy.deepcopy(result.model).eval()
    step(model, X)
    for name, tensor in torch.load(tmp_path / "stepped.pt", weights_only=True).items():
        torch.testing.assert_close(tensor, model.state_dict()[name], rtol=1e-4, atol=1e-6)


def step(model, x, lr=0.1):
    """One step of SGD; in evaluation mode, in which BatchNorm takes no means of the batch."""
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    model(x).square().mean().backward()
    optimizer.step()


def test_torchao_takes_the_linear_stages_in_8_bits():
    pytest.importorskip("torchao")
    torch.manual_seed(0)
    layers = [
        nn.Conv2d(3, 32, 3, stride=4),
        nn.Flatten(),
        nn.Linear(2048, 256),
        nn.ReLU(),
        nn.Linear(256, 10),
    ]
    small = tt.compress(nn.Sequential(*layers).eval(), X, tt.Ranks({"0": 0.8, "2": 64})).model
    with torch.no_grad():
        expected = small(X)
        run_block("interoperability.md", "torchao", result=SimpleNamespace(model=small))
        kinds = {type(layer.weight).__name__ for layer in (*small[2], small[4])}
        assert all("Int8" in kind for kind in kinds)
        assert all(type(stage.weight) is nn.Parameter for stage in small[0])
        same(expected, small(X), 0.05)
        assert not torch.equal(expected, small(X))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_executorch_runs_it_on_xnnpack(little, tmp_path, monkeypatch):
    pytest.importorskip("executorch")
    monkeypatch.chdir(tmp_path)
    program = torch.export.load(tt.export(little, "net.pt2", X, dynamic="none").path)
    made = run_block("deploy.md", "executorch", program=program, example_inputs=X)
    nodes = made["lowered"].exported_program().graph.nodes
    called = [node.target.__name__ for node in nodes if node.op == "call_function"]
    assert "executorch_call_delegate" in called
    assert not [name for name in called if "conv" in name or "mm" in name]  # none is left to slower kernels
    with torch.no_grad():
        same(little(X), made["scores"])


def test_peft_trains_low_rank_updates_of_the_stages(small):
    peft = pytest.importorskip("peft")
    before = {name: tensor.clone() for name, tensor in small.state_dict().items()}
    chain = next(name for name, module in small.named_modules() if isinstance(module, Chain))
    with pytest.raises(ValueError, match="not supported"):
        peft.get_peft_model(copy.deepcopy(small), peft.LoraConfig(r=2, target_modules=[chain]))
    torch.manual_seed(0)
    made = run_block("interoperability.md", "peft", tt=tt, result=SimpleNamespace(model=small))
    tuned = made["tuned"]
    step(tuned, X, lr=1e-3)
    step(tuned, X, lr=1e-3)
    with torch.no_grad():
        expected = tuned(X)
        merged = tuned.merge_and_unload()
        same(expected, merged(X), 1e-3)
    changed = {name for name, tensor in merged.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed
    assert changed <= {f"{stage}.weight" for stage in made["stages"]}


def test_onnx_runtimes_own_tools_quantize_the_file(little, tmp_path):
    pytest.importorskip("onnxscript")
    quantization = pytest.importorskip("onnxruntime.quantization")
    onnxruntime = pytest.importorskip("onnxruntime")

    class Images(quantization.CalibrationDataReader):
        def __init__(self):
            self.left = [X[:1].numpy(), X[1:].numpy()]

        def get_next(self):
            return {name: self.left.pop()} if self.left else None

    path = tt.export(little, tmp_path / "net.onnx", X).path
    name = onnxruntime.InferenceSession(path).get_inputs()[0].name
    quantization.quantize_static(path, tmp_path / "int8.onnx", Images())
    (found,) = onnxruntime.InferenceSession(tmp_path / "int8.onnx").run(None, {name: X.numpy()})
    with torch.no_grad():
        same(little(X), torch.from_numpy(found), 0.05)
    assert (tmp_path / "int8.onnx").stat().st_size < path.stat().st_size
