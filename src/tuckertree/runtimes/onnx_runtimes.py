"""ONNX Runtime and OpenVINO, on the CPU, in single precision or in 8 bits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from tuckertree._base.errors import TuckertreeError
from tuckertree._base.extras import require_extra
from tuckertree.runtimes.onnx_model import Dynamic, branches_to_onnx, quiet_export, to_onnx
from tuckertree.runtimes.quantization import FP32, INT8, batches_for_time, quantized
from tuckertree.runtimes.runtime import Runnable, Runtime
from tuckertree.runtimes.signal_stack import same_signal_stack

_LARGEST_PROTOBUF = 2**31 - 2**20


class _OnnxRuntime(Runtime):
    """What runs ONNX models."""

    reads_onnx: ClassVar[bool] = True
    measures_memory: ClassVar[bool] = True
    precisions: ClassVar[tuple[str, ...]] = (FP32, INT8)

    def load(self, model: nn.Module, inputs: Sequence[Tensor]) -> Runnable:
        """As :meth:`Runtime.load`, by way of ONNX."""
        return self._load_proto(to_onnx(model, inputs), inputs)

    def load_branches(self, models: Sequence[nn.Module], inputs: Sequence[Tensor]) -> list[Runnable]:
        """As :meth:`Runtime.load_branches`, by one export."""
        return [self._load_proto(proto, inputs) for proto in branches_to_onnx(models, inputs)]

    def _load_proto(self, proto: Any, inputs: Sequence[Tensor]) -> Runnable:
        if self.precision == INT8:
            proto = quantized(proto, batches_for_time(inputs))
        return self.load_onnx(proto.SerializeToString())

    def open(self, path: Path) -> Runnable:
        """As :meth:`Runtime.open`."""
        if not path.is_file():
            raise TuckertreeError(f"there is no file {path}")
        return self.load_onnx(str(path))

    def load_onnx(self, model: bytes | str) -> Runnable:
        """Make an ONNX model ready: its bytes, or the path of its file."""
        try:
            return self._make_ready(model)
        except TuckertreeError:
            raise
        except Exception as error:
            what = model if isinstance(model, str) else "the model"
            complaint = " ".join(str(error).split()) or type(error).__name__
            raise TuckertreeError(f"{self.name} cannot load {what}: {complaint}") from error

    def _make_ready(self, model: bytes | str) -> Runnable:
        raise NotImplementedError


class OnnxRuntimeRunnable(Runnable):
    """An ``onnxruntime.InferenceSession``."""

    def __init__(self, runnable: Any) -> None:
        self._loaded = runnable
        self.inputs = [(value.name, value.shape) for value in runnable.get_inputs()]

    def bind(self, inputs: Sequence[Tensor]) -> Callable[[], Any]:
        """As :meth:`Runnable.bind`."""
        if len(inputs) != len(self.inputs):
            raise TuckertreeError(f"the ONNX model takes {len(self.inputs)} inputs, {len(inputs)} were given")
        feed = {
            name: x.detach().cpu().contiguous().numpy()
            for (name, _), x in zip(self.inputs, inputs, strict=True)
        }
        return lambda: self._loaded.run(None, feed)

    def run(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """As :meth:`Runnable.run`."""
        return [torch.from_numpy(output) for output in self.bind(inputs)()]

    @property
    def threads(self) -> int:
        """As :attr:`Runnable.threads`."""
        return int(self._loaded.get_session_options().intra_op_num_threads)


class OnnxRuntime(_OnnxRuntime):
    """ONNX Runtime's CPU provider."""

    name: ClassVar[str] = "onnxruntime"
    format: ClassVar[str] = "onnx"
    suffix: ClassVar[str] = ".onnx"

    @property
    def version(self) -> str:
        """Version of onnxruntime."""
        return str(require_extra("onnxruntime", extra="onnx").__version__)

    def write(
        self, model: nn.Module, inputs: Sequence[Tensor], path: Path, dynamic: Dynamic = "none"
    ) -> None:
        """As :meth:`Runtime.write`; what is written is checked by ``onnx.checker``."""
        onnx = require_extra("onnx", extra="onnx")
        proto = to_onnx(model, inputs, dynamic)
        if proto.ByteSize() > _LARGEST_PROTOBUF:
            raise TuckertreeError("the model is larger than the 2 GiB that one ONNX file can hold")
        path.write_bytes(proto.SerializeToString())
        try:
            onnx.checker.check_model(str(path), full_check=True)
        except Exception as error:
            first = str(error).strip().splitlines()[0]
            raise TuckertreeError(f"the ONNX model is not valid: {first}") from error

    def _make_ready(self, model: bytes | str) -> Runnable:
        onnxruntime = require_extra("onnxruntime", extra="onnx")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = self.threads, 1
        options.log_severity_level = 3  # errors alone
        return OnnxRuntimeRunnable(
            onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        )


class OpenVinoRunnable(Runnable):
    """An OpenVINO inference request."""

    def __init__(self, compiled: Any) -> None:
        self._compiled = compiled
        self._request, self._outputs = compiled.create_infer_request(), len(compiled.outputs)

    def bind(self, inputs: Sequence[Tensor]) -> Callable[[], Any]:
        """As :meth:`Runnable.bind`."""
        feed = [x.detach().cpu().contiguous().numpy() for x in inputs]
        return lambda: self._request.infer(feed, share_inputs=True, share_outputs=True)

    def run(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """As :meth:`Runnable.run`."""
        found = self.bind(inputs)()
        return [torch.from_numpy(found[number].copy()) for number in range(self._outputs)]

    @property
    def threads(self) -> int:
        """As :attr:`Runnable.threads`."""
        return int(self._compiled.get_property("INFERENCE_NUM_THREADS"))


class OpenVino(_OnnxRuntime):
    """OpenVINO's CPU plugin, which is kept from going over to bfloat16 where the CPU has it."""

    name: ClassVar[str] = "openvino"
    format: ClassVar[str] = "openvino"
    suffix: ClassVar[str] = ".xml"

    @property
    def version(self) -> str:
        """Version of openvino."""
        return str(require_extra("openvino", extra="openvino").__version__)

    def write(
        self, model: nn.Module, inputs: Sequence[Tensor], path: Path, dynamic: Dynamic = "none"
    ) -> None:
        """As :meth:`Runtime.write`; the weights go to a ``.bin`` beside it."""
        openvino = require_extra("openvino", extra="openvino")
        proto = to_onnx(model, inputs, dynamic)
        with quiet_export(self.format):
            read = openvino.Core().read_model(proto.SerializeToString())
        try:
            openvino.save_model(read, str(path), compress_to_fp16=False)
        except RuntimeError as error:  # the model is read already: this is the disk
            raise OSError(str(error).strip().splitlines()[-1]) from error

    def _make_ready(self, model: bytes | str) -> Runnable:
        core = require_extra("openvino", extra="openvino").Core()
        settings = {
            "INFERENCE_NUM_THREADS": self.threads,
            "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "f32",
        }
        with same_signal_stack():
            return OpenVinoRunnable(core.compile_model(core.read_model(model), "CPU", settings))
