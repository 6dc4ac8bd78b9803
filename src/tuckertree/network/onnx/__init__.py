"""ONNX files compressed as they are, with no framework that made them; needs the extra ``onnx``.

result = compress_onnx("model.onnx", "small.onnx", Budget(macs=0.6), calibration=images)
print(result)
"""

from tuckertree.network.onnx.compression import compress_onnx, onnx_inventory, onnx_trade_off_curve
from tuckertree.network.onnx.files import read_onnx
from tuckertree.network.onnx.network import OnnxNetwork
from tuckertree.network.onnx.result import OnnxResult

__all__ = [
    "OnnxNetwork",
    "OnnxResult",
    "compress_onnx",
    "onnx_inventory",
    "onnx_trade_off_curve",
    "read_onnx",
]
