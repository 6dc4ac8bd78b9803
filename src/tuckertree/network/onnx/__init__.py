"""ONNX files: read with care, run in torch, written with chains as nodes and all else byte for byte.

Needs the extra ``onnx``, and no framework that made the file.
"""

from tuckertree.network.onnx.files import OnnxFile, read_onnx
from tuckertree.network.onnx.module import OnnxModule
from tuckertree.network.onnx.session_module import SessionModule

__all__ = ["OnnxFile", "OnnxModule", "SessionModule", "read_onnx"]
