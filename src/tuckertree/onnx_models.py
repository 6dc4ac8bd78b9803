"""ONNX files in one call: a file in, a smaller one out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tuckertree.compression import CompressionResult, OnnxNetwork, compress
from tuckertree.compression.objectives import AnyRule
from tuckertree.network.onnx.inputs import Sizes, Values


def compress_onnx(
    model: str | Path,
    output: str | Path,
    rule: AnyRule,
    *,
    input_size: Sizes = None,
    input_values: Values = None,
    overwrite: bool = False,
    **options: Any,
) -> CompressionResult:
    """Compress an ONNX file and write the result, once it is known that it can be written.

    Parameters
    ----------
    model, output
        ONNX files.
    rule, options
        As of :func:`tuckertree.compress`.
    input_size, input_values
        As of :class:`tuckertree.compression.OnnxNetwork`.
    overwrite
        Whether ``output`` may be replaced.

    Raises
    ------
    TuckertreeError
        As :func:`tuckertree.compress` and :meth:`~tuckertree.compression.CompressionResult.save`.
    """
    network = OnnxNetwork(model, input_size=input_size, input_values=input_values)
    network.check_output(Path(output), overwrite=overwrite)
    result = compress(network, None, rule, **options)
    result.save(output, overwrite=overwrite)
    return result
