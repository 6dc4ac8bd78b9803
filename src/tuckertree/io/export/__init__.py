"""Networks as files that need no tuckertree: ONNX, torch.export and OpenVINO, each compared before it is kept."""

from tuckertree.io.export.copying import export_int8
from tuckertree.io.export.exporting import Exported, check_target, export
from tuckertree.io.export.quantization import FileNetwork

__all__ = ["Exported", "FileNetwork", "check_target", "export", "export_int8"]
