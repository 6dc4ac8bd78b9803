import numpy as np
import pytest
import torch

from tests.network.onnx.cases import constant, network, numbers, onnx, onnx_inventory, save, tensor, value
from tuckertree.network.onnx.files import read_onnx
from tuckertree.network.onnx.parameters import count_parameters
from tuckertree.runtimes.quantization import quantized as in_int8


def test_a_file_in_8_bits_has_as_many_parameters_as_before(tmp_path):
    pytest.importorskip("onnxruntime.quantization")
    dense = read_onnx(network(tmp_path / "dense.onnx"))
    images = [numbers(4, 3, 16, 16, seed=seed) for seed in range(2)]
    for exclude in ((), ("two",)):
        in_8_bits = in_int8(dense.proto, [[torch.from_numpy(image)] for image in images], exclude)
        assert count_parameters(in_8_bits) == count_parameters(dense.proto)
        assert {t.data_type for t in in_8_bits.graph.initializer} > {1}  # not in floating point alone


def quantized(shape, kind=np.int8):
    return numbers(*shape, seed=1).astype(kind)


@pytest.mark.parametrize("through", ["", "Transpose", "Reshape"])
def test_a_weight_that_is_quantized_counts_once_and_no_scale_or_zero_point(tmp_path, through):
    nodes = [
        constant("scale", np.array(0.5, np.float32)),
        constant("zero", np.array(0, np.int8)),
        constant("shape", np.array([4, 4])),
        *(
            [onnx.helper.make_node(through, ["w", "shape"][: 1 + (through == "Reshape")], ["v"])]
            if through
            else []
        ),
        onnx.helper.make_node("DequantizeLinear", ["v" if through else "w", "scale", "zero"], ["a"]),
        onnx.helper.make_node("DequantizeLinear", ["v" if through else "w", "scale", "zero"], ["b"]),
        onnx.helper.make_node("MatMul", ["x", "a"], ["c"]),
        onnx.helper.make_node("MatMul", ["c", "b"], ["d"]),
        onnx.helper.make_node("Add", ["d", "e"], ["y"]),
    ]
    tensors = [tensor("w", quantized((4, 4))), tensor("e", numbers(4))]
    path = save(tmp_path / "m.onnx", nodes, [value("x", [1, 4])], [value("y", 2)], tensors)
    assert onnx_inventory(path).parameters == 4 * 4 + 4


def test_a_convolution_in_integers_counts_its_weight_and_its_bias(tmp_path):
    scalar = {"s": np.array(0.1, np.float32), "z": np.array(0, np.uint8), "wz": np.array(0, np.int8)}
    node = onnx.helper.make_node("QLinearConv", ["x", "s", "z", "w", "s", "wz", "s", "z", "b"], ["y"])
    tensors = [tensor(name, array) for name, array in scalar.items()]
    tensors += [tensor("w", quantized((6, 4, 3, 3))), tensor("b", quantized((6,), np.int32))]
    path = save(tmp_path / "m.onnx", [node], [value("x", [1, 4, 9, 9], 2)], [value("y", 4, 2)], tensors)
    assert onnx_inventory(path).parameters == 6 * 4 * 9 + 6
