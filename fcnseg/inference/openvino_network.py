"""A network in OpenVINO's own files, as a version that was published for OpenVINO has it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from fcnseg.errors import InputError, one_line
from fcnseg.extras import require_extra
from fcnseg.inference.averaging import PredictPatches
from fcnseg.inference.computed_precision import openvino_core
from fcnseg.inference.openvino_backend import predictor_of
from fcnseg.networks.precision import Precision

_Sizes = tuple[int | None, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class OpenvinoNetwork:
    """A network for windows of one size, with the shapes that a Keras model tells.

    Attributes:
        graph: The `openvino.Model`, from HU (batch, z, y, x, 1) to probabilities (batch, z, y, x,
            classes).
        precision: Precision of the layers that are not in int8.
    """

    graph: Any
    precision: Precision = "float32"

    @classmethod
    def read(cls, path: Path, precision: Precision = "float32") -> OpenvinoNetwork:
        """Reads a network.

        Args:
            path: File of its graph; that of its weights is next to it.
            precision: Precision of the layers that are not in int8.

        Raises:
            InputError: If one of the files is missing or broken.
            MissingExtraError: If OpenVINO is not installed.
        """
        core = openvino_core()
        try:
            return cls(core.read_model(path), precision)
        except RuntimeError as error:
            raise InputError(f"not a network of OpenVINO: {path}: {one_line(error)}") from error

    def write(self, path: Path) -> None:
        """Writes the graph to a `.xml` file, and the weights to the `.bin` file next to it."""
        require_extra("openvino").save_model(self.graph, path, compress_to_fp16=False)

    @property
    def input_shape(self) -> _Sizes:
        """(None, z, y, x, 1)."""
        return _sizes(self.graph.input())

    @property
    def output_shape(self) -> _Sizes:
        """(None, z, y, x, classes)."""
        return _sizes(self.graph.output())

    def compute_output_shape(self, shape: _Sizes) -> _Sizes:
        """Gives the shape of the output (batch, z, y, x, classes) for an input.

        Raises:
            ValueError: If the input is not of windows that the network takes.
        """
        if shape[1:] != self.input_shape[1:]:
            raise ValueError(f"shape must be {self.input_shape}, got {shape}")
        return (shape[0], *self.output_shape[1:])

    def predictor(self) -> PredictPatches:
        """Makes the function from windows to probabilities."""
        return predictor_of(self.graph, self.precision)


def _sizes(port: Any) -> _Sizes:
    return tuple(size.get_length() if size.is_static else None for size in port.get_partial_shape())
