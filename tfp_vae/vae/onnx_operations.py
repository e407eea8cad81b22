"""Operations that TFP's moments are made of and that tf2onnx does not convert, in those of ONNX.

Each function is a handler of tf2onnx: it puts nodes of ONNX in the place of one of TensorFlow's.
None of this imports tf2onnx, which is at hand only while one of them is called.
"""

from typing import Any

import numpy as np

_INT32, _INT64 = 6, 7  # of onnx.TensorProto, fixed by the file format


def _broadcast_args(graph: Any, node: Any, name: str, arguments: Any) -> None:
    """The shape that two shapes broadcast to: that of zeros of the one, expanded to the other."""
    make = _maker(graph)
    first, second = (make("Cast", shape, to=_INT64) for shape in node.input)
    shape = make("Shape", make("Expand", make("ConstantOfShape", first), second))
    _replace(graph, node, "Cast", shape, to=_INT32)


def _log1p(graph: Any, node: Any, name: str, arguments: Any) -> None:
    """``log(u) x / (u - 1)``, ``u = 1 + x``: what x loses in the sum, it loses in both factors.

    ``log(1 + x)`` itself has no digit left of a small x (Higham 2002, Accuracy and Stability of
    Numerical Algorithms, section 1.14.1).
    """
    make, (x,) = _maker(graph), node.input
    one = _constant(graph, x, 1)
    u = make("Add", x, one)
    kept = make("Sub", u, one)
    exact = make("Div", make("Mul", make("Log", u), x), kept)
    _replace(graph, node, "Where", make("Equal", kept, _constant(graph, x, 0)), x, exact)


def _expm1(graph: Any, node: Any, name: str, arguments: Any) -> None:
    """``tanh(x / 2) (exp(x) + 1)``, which subtracts nothing."""
    make, (x,) = _maker(graph), node.input
    tanh = make("Tanh", make("Mul", x, _constant(graph, x, 0.5)))
    _replace(graph, node, "Mul", tanh, make("Add", make("Exp", x), _constant(graph, x, 1)))


#: As ``custom_op_handlers`` of ``tf2onnx.convert.from_function``.
HANDLERS: dict[str, tuple[Any, list[Any]]] = {
    "BroadcastArgs": (_broadcast_args, []),
    "Log1p": (_log1p, []),
    "Expm1": (_expm1, []),
}


def _maker(graph: Any) -> Any:
    def make(operation: str, *inputs: str, **attributes: Any) -> str:
        return graph.make_node(operation, list(inputs), attr=attributes).output[0]

    return make


def _constant(graph: Any, like: str, value: float) -> str:
    from tf2onnx import utils

    kind = utils.map_onnx_to_numpy_type(graph.get_dtype(like))
    return graph.make_const(utils.make_name("constant"), np.array(value, kind)).output[0]


def _replace(graph: Any, node: Any, operation: str, *inputs: str, **attributes: Any) -> None:
    """Put a node of this operation in the place of `node`, under its name."""
    shapes, kinds = node.output_shapes, node.output_dtypes
    graph.remove_node(node.name)
    graph.make_node(
        operation, list(inputs), attr=attributes, name=node.name, outputs=node.output,
        shapes=shapes, dtypes=kinds,
    )  # fmt: skip
