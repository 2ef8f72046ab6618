"""Exports torch networks. Not imported by serving."""

import inspect
import logging
import warnings
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

# Tells on every export that operators of torchvision, which nobody uses, are left out.
logging.getLogger("torch.onnx._internal.exporter._registration").setLevel(logging.ERROR)


class Example(NamedTuple):
    """An input of a network.

    Attributes:
        value: a few rows; only its shape counts.
        axes: the axes that vary, from the first on: those of one name vary together.
    """

    value: NDArray[np.generic]
    axes: Sequence[str] = ("n",)


def export_onnx(network: nn.Module, inputs: Mapping[str, Example], outputs: Sequence[str]) -> bytes:
    """A network as ONNX.

    Args:
        inputs: of its `forward`, in order, by the names that they get.
        outputs: names of what it returns.
    """
    dims = {axis: torch.export.Dim(axis) for _, axes in inputs.values() for axis in axes}
    shapes = tuple({at: dims[axis] for at, axis in enumerate(i.axes)} for i in inputs.values())
    parameters = inspect.signature(network.forward).parameters.values()
    any_number = any(p.kind is p.VAR_POSITIONAL for p in parameters)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            network.eval(),
            # Copies: an array that is given twice would become one input.
            tuple(torch.from_numpy(example.value.copy()) for example in inputs.values()),
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_shapes=(shapes,) if any_number else shapes,
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    content: bytes = program.model_proto.SerializeToString()
    return content
