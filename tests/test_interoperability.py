"""A compressed network among other people's tools; docs/interoperability.md lists them with these tests."""

import copy
import pickle
import subprocess
import sys
from pathlib import Path

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


def same(ours, theirs, tolerance=1e-4):
    torch.testing.assert_close(theirs, ours, rtol=tolerance, atol=tolerance * float(ours.abs().max()))


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


def step(model, x):
    """One step of SGD; in evaluation mode, in which BatchNorm takes no means of the batch."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model(x).square().mean().backward()
    optimizer.step()


def test_torchao_takes_the_linear_stages_in_8_bits():
    quantization = pytest.importorskip("torchao.quantization")
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(3072, 256), nn.ReLU(), nn.Linear(256, 10)).eval()
    small = tt.compress(model, X, tt.Ranks({"1": 64})).model
    with torch.no_grad():
        expected = small(X)
        quantization.quantize_(small, quantization.Int8WeightOnlyConfig())
        kinds = {type(stage.weight).__name__ for stage in small[1]}
        assert kinds == {type(small[3].weight).__name__}
        assert "Int8" in kinds.pop()
        same(expected, small(X), 0.05)
        assert not torch.equal(expected, small(X))


def test_executorch_runs_it_on_xnnpack(small, tmp_path):
    exir = pytest.importorskip("executorch.exir")
    partitioner = pytest.importorskip("executorch.backends.xnnpack.partition.xnnpack_partitioner")
    runtime = pytest.importorskip("executorch.runtime").Runtime.get()
    program = torch.export.export(small, (X,))
    lowered = exir.to_edge_transform_and_lower(program, partitioner=[partitioner.XnnpackPartitioner()])
    called = [
        node.target.__name__ for node in lowered.exported_program().graph.nodes if node.op == "call_function"
    ]
    assert set(called) == {"executorch_call_delegate", "getitem"}  # nothing is left to slower kernels
    assert called.count("executorch_call_delegate") == 1
    (tmp_path / "net.pte").write_bytes(lowered.to_executorch().buffer)
    (found,) = runtime.load_program(tmp_path / "net.pte").load_method("forward").execute([X])
    with torch.no_grad():
        same(small(X), found)


def test_peft_trains_low_rank_updates_of_the_stages(small):
    peft = pytest.importorskip("peft")
    stages = [
        f"{place}.{name}"
        for place, module in small.named_modules()
        if isinstance(module, Chain)
        for name, stage in module.named_children()
    ]
    before = {name: tensor.clone() for name, tensor in small.state_dict().items()}
    torch.manual_seed(0)
    tuned = peft.get_peft_model(small, peft.LoraConfig(r=2, target_modules=stages))
    step(tuned, X)
    step(tuned, X)
    with torch.no_grad():
        expected = tuned(X)
    merged = tuned.merge_and_unload()
    with torch.no_grad():
        same(expected, merged(X), 1e-3)
    changed = {name for name, tensor in merged.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed
    assert changed <= {f"{stage}.weight" for stage in stages}


def test_onnx_runtimes_own_tools_quantize_the_file(small, tmp_path):
    pytest.importorskip("onnxscript")
    quantization = pytest.importorskip("onnxruntime.quantization")
    onnxruntime = pytest.importorskip("onnxruntime")

    class Images(quantization.CalibrationDataReader):
        def __init__(self):
            self.left = [X[:1].numpy(), X[1:].numpy()]

        def get_next(self):
            return {name: self.left.pop()} if self.left else None

    path = tt.export(small, tmp_path / "net.onnx", X).path
    name = onnxruntime.InferenceSession(path).get_inputs()[0].name
    quantization.quantize_static(path, tmp_path / "int8.onnx", Images())
    (found,) = onnxruntime.InferenceSession(tmp_path / "int8.onnx").run(None, {name: X.numpy()})
    with torch.no_grad():
        same(small(X), torch.from_numpy(found), 0.5)
    assert (tmp_path / "int8.onnx").stat().st_size < path.stat().st_size
