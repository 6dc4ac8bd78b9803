"""Plain layers written as ONNX nodes, beside what torch's exporter writes."""

import pytest
import torch
from torch import nn

from tuckertree.core.layers import factorize
from tuckertree.runtimes import get_runtime
from tuckertree.runtimes.onnx_model import branches_to_onnx, to_onnx
from tuckertree.runtimes.plain_layers import is_plain, plain_to_onnx
from tuckertree.runtimes.runtime import reference_outputs

PLAIN = {
    "conv": (nn.Conv2d(6, 4, 3, stride=2, padding=1, dilation=2), (2, 6, 9, 8)),
    "no bias": (nn.Conv2d(6, 4, (1, 3), padding=(0, 2), bias=False), (2, 6, 9, 8)),
    "same": (nn.Conv2d(6, 4, (2, 3), padding="same", dilation=(1, 2)), (1, 6, 9, 8)),
    "valid": (nn.Conv2d(6, 4, 3, padding="valid"), (1, 6, 9, 8)),
    "groups": (nn.Conv2d(6, 12, 3, groups=6), (1, 6, 5, 5)),
    "one axis": (nn.Conv1d(3, 5, 3, padding=1), (1, 3, 12)),
    "three axes": (nn.Conv3d(3, 5, (1, 2, 3)), (1, 3, 4, 5, 6)),
    "transposed": (
        nn.ConvTranspose2d(6, 4, 3, stride=2, padding=1, output_padding=1, groups=2),
        (1, 6, 5, 4),
    ),
    "chain": (factorize(nn.Conv2d(6, 8, 3, padding=1), "ht2", (3, 4, 3)), (1, 6, 5, 4)),
    "transposed in a sequence": (
        nn.Sequential(nn.Conv2d(6, 3, 1), nn.ConvTranspose2d(3, 8, 2, 2)),
        (1, 6, 5, 4),
    ),
    "nested": (nn.Sequential(nn.Sequential(nn.Conv2d(3, 4, 1)), nn.Conv2d(4, 2, 3)), (1, 3, 5, 4)),
    "linear": (nn.Linear(6, 4), (3, 6)),
    "linear chain": (nn.Sequential(nn.Linear(6, 2, bias=False), nn.Linear(2, 5)), (3, 6)),
    "positions": (nn.Sequential(nn.Linear(6, 2, bias=False), nn.Linear(2, 5)), (2, 7, 6)),
}
OTHERS = {
    "reflect": (nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect"), (1, 3, 5, 5)),
    "activation": (nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU()), (1, 3, 5, 5)),
    "no batch": (nn.Conv2d(3, 4, 1), (3, 5, 5)),
    "another type": (nn.Conv2d(3, 4, 1).double(), (1, 3, 5, 5)),
    "nothing": (nn.Sequential(), (1, 3, 5, 5)),
}


@pytest.mark.parametrize(("model", "shape"), PLAIN.values(), ids=PLAIN)
def test_the_outputs_are_those_of_torch_by_the_nodes_of_its_exporter(model, shape):
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    assert is_plain(model, [x])
    written, exported = plain_to_onnx(model, [x]), to_onnx(model, [x])
    onnx.checker.check_model(written, full_check=True)
    assert [node.op_type for node in written.graph.node] == [node.op_type for node in exported.graph.node]
    runtime, expected = get_runtime("onnxruntime", threads=1), reference_outputs(model, [x])[0]
    outputs = [runtime.load_onnx(proto.SerializeToString()).run([x])[0] for proto in (written, exported)]
    torch.testing.assert_close(outputs[0], expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(outputs[0], outputs[1], rtol=0, atol=1e-6)


@pytest.mark.parametrize(("model", "shape"), OTHERS.values(), ids=OTHERS)
def test_what_is_more_than_plain_layers_is_left_to_the_exporter(model, shape):
    assert not is_plain(model, [torch.zeros(shape)])


def test_a_module_that_forward_was_changed_of_is_not_plain():
    class Doubled(nn.Sequential):
        def forward(self, x):
            return 2 * super().forward(x)

    class Wider(nn.Conv2d):
        def forward(self, x):
            return super().forward(x) + 1

    x = torch.zeros(1, 3, 5, 5)
    assert not is_plain(Doubled(nn.Conv2d(3, 4, 1)), [x])
    assert not is_plain(Wider(3, 4, 1), [x])


def test_plain_layers_and_others_come_back_in_their_order():
    pytest.importorskip("onnxruntime")
    x = torch.randn(1, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    models = [OTHERS["activation"][0], nn.Conv2d(3, 4, 1), OTHERS["reflect"][0], nn.Conv2d(3, 2, 3)]
    runtime = get_runtime("onnxruntime", threads=1)
    for model, proto in zip(models, branches_to_onnx(models, [x]), strict=True):
        (found,) = runtime.load_onnx(proto.SerializeToString()).run([x])
        torch.testing.assert_close(found, reference_outputs(model, [x])[0], rtol=0, atol=1e-5)
