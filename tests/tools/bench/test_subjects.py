"""What an ONNX file costs, and which files can be timed."""

import pytest
import torch
from torch import nn

from tuckertree._base.errors import TuckertreeError, UsageError
from tuckertree._base.names import TrustedName
from tuckertree.measure import count_macs
from tuckertree.runtimes import to_onnx
from tuckertree.tools.bench import open_subject

pytest.importorskip("onnxscript")


class Every(nn.Module):
    """Each kind of layer whose work is counted."""

    def __init__(self):
        super().__init__()
        self.down = nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2)
        self.up = nn.ConvTranspose2d(6, 4, 2, stride=2)
        self.chain = nn.Sequential(nn.Conv2d(4, 3, (3, 1)), nn.ReLU(), nn.BatchNorm2d(3))
        self.head = nn.Linear(3, 5)

    def forward(self, x):
        x = self.chain(self.up(self.down(x)))
        y = x.flatten(2)
        return self.head(x.mean((2, 3))), y @ y.mT


@pytest.fixture(scope="module")
def network():
    return Every().eval()


@pytest.fixture(scope="module")
def files(network, tmp_path_factory):
    folder = tmp_path_factory.mktemp("onnx")
    x = torch.zeros(2, 4, 8, 8)
    for dynamic in ("none", "batch", "size"):
        (folder / f"{dynamic}.onnx").write_bytes(to_onnx(network, [x], dynamic).SerializeToString())
    return folder


def test_macs_of_an_onnx_model_are_those_of_the_module(network, files):
    for name, batch, size in (("none", 2, (8, 8)), ("batch", 5, (8, 8)), ("size", 3, (12, 8))):
        subject = open_subject(files / f"{name}.onnx", batch=batch, input_size=(4, *size))
        assert subject.macs == count_macs(network, torch.zeros(1, 4, *size))


def test_external_data_belong_to_the_size_of_a_file(files, tmp_path):
    import onnx

    proto, path = onnx.load(files / "batch.onnx"), tmp_path / "net.onnx"
    onnx.save(proto, path, save_as_external_data=True, location="net.data", size_threshold=100)
    data = (tmp_path / "net.data").stat().st_size
    assert open_subject(path).size == path.stat().st_size + data


def test_a_file_is_opened_for_a_batch(network, files):
    subject = open_subject(files / "batch.onnx", batch=3)
    assert subject.inputs.shape == (3, 4, 8, 8)
    assert subject.macs == count_macs(network, torch.zeros(1, 4, 8, 8))
    assert subject.size == (files / "batch.onnx").stat().st_size
    assert open_subject(files / "size.onnx", input_size=(4, 16, 8)).inputs.shape == (1, 4, 16, 8)


def test_files_that_take_bytes_or_half_precision_can_be_timed(tmp_path):
    import onnx
    from onnx import TensorProto, helper

    for kind, dtype in ((TensorProto.UINT8, torch.uint8), (TensorProto.FLOAT16, torch.float16)):
        cast = helper.make_node("Cast", ["x"], ["y"], to=TensorProto.FLOAT)
        x, y = (
            helper.make_tensor_value_info(name, elements, [None, 3])
            for name, elements in (("x", kind), ("y", TensorProto.FLOAT))
        )
        path = tmp_path / "net.onnx"
        onnx.save(helper.make_model(helper.make_graph([cast], "g", [x], [y]), ir_version=8), path)
        inputs = open_subject(path, batch=2).inputs
        assert (inputs.dtype, inputs.shape) == (dtype, (2, 3))


def test_a_network_by_name_is_as_large_as_its_weights():
    subject = open_subject(TrustedName("demo"), batch=2)
    assert subject.inputs.shape == (2, 3, 32, 32)
    assert subject.macs == 40_551_040
    assert subject.size > 4 * 269_722


@pytest.mark.parametrize(
    ("name", "options", "error", "message"),
    [
        ("none.onnx", {"batch": 1}, UsageError, "takes 2 samples at a time, so --batch 1 cannot be timed"),
        (
            "batch.onnx",
            {"input_size": (4, 9, 9)},
            UsageError,
            r"--input-size does not fit the input .*\[\?, 4, 8, 8\]",
        ),
        ("batch.onnx", {"input_size": (8, 8)}, UsageError, "does not fit the input"),
        ("size.onnx", {}, UsageError, "give --input-size"),
        ("nowhere.onnx", {}, TuckertreeError, "nowhere.onnx cannot be read: No such file"),
        ("text.onnx", {}, TuckertreeError, "text.onnx is not an ONNX model, or a truncated one"),
        ("operator.onnx", {}, TuckertreeError, r"operator.onnx: ONNX Runtime cannot run .*Nonesuch"),
    ],
)
def test_files_that_cannot_be_timed_are_refused(files, name, options, error, message):
    import onnx

    (files / "text.onnx").write_text("no model at all")
    proto = onnx.load(files / "batch.onnx")
    proto.opset_import.add(domain="com.example", version=1)
    proto.graph.node.add(op_type="Nonesuch", domain="com.example", output=["z"])
    proto.graph.output.add(name="z").type.tensor_type.elem_type = 1
    proto.graph.output[-1].type.tensor_type.shape.dim.add(dim_value=1)
    onnx.save(proto, files / "operator.onnx")
    with pytest.raises(error, match=message) as caught:
        open_subject(files / name, **options)
    assert "\n" not in str(caught.value)
