"""ONNX operators as functions of torch, with gradients, exactly as ONNX Runtime computes them."""

from tuckertree.network.onnx.operators import (
    activations,
    arithmetic,
    creation,
    indexing,
    normalisation,
    padding,
    pooling,
    products,
    recurrent,
    reductions,
    resizing,
    shapes,
)
from tuckertree.network.onnx.operators.operation import Function, Maker, Operation

TABLE: dict[str, Maker] = {
    **activations.TABLE,
    **arithmetic.TABLE,
    **creation.TABLE,
    **indexing.TABLE,
    **normalisation.TABLE,
    **padding.TABLE,
    **pooling.TABLE,
    **products.TABLE,
    **recurrent.TABLE,
    **reductions.TABLE,
    **resizing.TABLE,
    **shapes.TABLE,
}
"""What makes the functions of each type of operator."""
OPSETS = range(7, 27)
"""Those the table was written for: ONNX Runtime promises none before them."""
_SEVERAL = {"Dropout", "GRU", "LSTM", "RNN", "Split", "TopK"}


def function_of(operation: Operation) -> Function | None:
    """A function that computes what a node does.

    It takes one tensor for each input (None for one that is omitted), does not write into them, and gives a tensor,
    or a tuple if several outputs are wanted. Autograd differentiates it wherever the operator has a derivative.

    Returns
    -------
    Function or None
        None if the table lacks the operator, or torch cannot do this variant of it exactly. Where only the inputs show
        that, the function raises ``NotImplementedError``.
    """
    maker = TABLE.get(operation.kind)
    if maker is None or operation.opset not in OPSETS:
        return None
    if operation.outputs > 1 and operation.kind not in _SEVERAL:
        return None
    return maker(operation)


__all__ = ["OPSETS", "TABLE", "Function", "Operation", "function_of"]
