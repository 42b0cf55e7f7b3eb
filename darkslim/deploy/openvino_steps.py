"""Takes the roundings off a network of 8 bits that OpenVINO does not need.

The ONNX file rounds to 8 bits wherever ONNX Runtime has an integer kernel: also between a convolution and
its activation, which OpenVINO computes in one, and both before and after a pooling, which makes no new
values. What the file says twice OpenVINO does twice: a pass over the map, for no use.
"""

from __future__ import annotations

import numpy as np

ACTIVATIONS = ("PRelu", "LeakyRelu", "Relu")
BACK = ("Multiply", "Subtract", "Convert")  # from steps to numbers


def spare(model) -> int:
    """Removes them from an OpenVINO model; how many there were."""
    found = 0
    for node in model.get_ordered_ops():
        kind = node.get_type_name()
        if kind in ACTIVATIONS:
            found += _before(node)
        elif kind == "Multiply":
            found += _after(node)
    return found


def _before(activation) -> bool:
    """The rounding between a convolution, its bias added or not, and its activation."""
    rounding = _rounding(activation.input_value(0))
    if rounding is None:
        return False
    made = rounding.input_value(0)
    if made.get_node().get_type_name() not in ("Add", "Convolution", "GroupConvolution"):
        return False
    if len(activation.input_value(0).get_target_inputs()) > 1:
        return False  # someone else reads the rounded map
    activation.input(0).replace_source_output(made)
    return True


def _after(multiply) -> bool:
    """The rounding of a map that was rounded alike before its values were chosen from, or that other one.

    The largest of rounded values is the largest value, rounded. OpenVINO pools floats in half of the time
    that integers take, so that the earlier one goes where nobody else reads what it makes.
    """
    rounding = _rounding(multiply.output(0))
    if rounding is None:
        return False
    chosen = source = rounding.input_value(0)
    while _chooses(source.get_node()):
        source = source.get_node().input_value(0)
    earlier = None if source is chosen else _rounding(source)
    if earlier is None or _limits(earlier) != _limits(rounding):
        return False
    pool = chosen.get_node()
    alone = pool.get_type_name() == "MaxPool" and len(source.get_target_inputs()) == 1
    if alone and pool.input_value(0).get_node() == source.get_node():
        pool.input(0).replace_source_output(earlier.input_value(0))
    else:
        multiply.output(0).replace(chosen)
    return True


def _rounding(output):
    """The rounding that an output is the result of, once turned back into numbers; None if it is of none."""
    node = output.get_node()
    if node.get_type_name() != "Multiply":
        return None
    while node.get_type_name() in BACK:
        node = node.input_value(0).get_node()
    return node if node.get_type_name() == "FakeQuantize" else None


def _limits(rounding) -> list:
    """What it clips to and its steps; what equals nothing else, where they are not constants."""
    found = [one.get_node() for one in rounding.input_values()[1:]]
    if any(one.get_type_name() != "Constant" for one in found):
        return [id(rounding)]
    return [np.ravel(one.data).tolist() for one in found]


def _chooses(node) -> bool:
    """Whether its values are among those that it is given."""
    kind = node.get_type_name()
    return kind == "MaxPool" or kind == "Interpolate" and node.get_attributes().get("mode") == "nearest"
