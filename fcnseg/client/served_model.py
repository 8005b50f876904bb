"""A model on a server: the name that requests have, and the facts that the server has of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from fcnseg.client.messages import DATA_TYPES
from fcnseg.errors import InputError

DEFAULT_SIGNATURE = "serving_default"
SEGMENT_VOLUME = "segment_volume"
SEGMENT_NIFTI = "segment_nifti"
MODEL_INFO = "model_info"

STATES = {0: "UNKNOWN", 10: "START", 20: "LOADING", 30: "AVAILABLE", 40: "UNLOADING", 50: "END"}
"""Names of the states of a version, by their numbers in `ModelVersionStatus`."""
AVAILABLE = "AVAILABLE"

_NUMPY_NAMES = {number: name for name, number in DATA_TYPES.items()}
# How REST names types: DT_INT16 for 5.
_OTHER_NAMES = {"DT_FLOAT": "float32", "DT_DOUBLE": "float64", "DT_HALF": "float16"}
_OTHER_NAMES |= {"DT_STRING": "object"}


@dataclasses.dataclass(frozen=True)
class ModelSpec:
    """The model that a request asks for.

    Attributes:
        name: Its name on the server.
        version: One version; the newest by default.
        label: The version with a label, instead of a number.
    """

    name: str
    version: int | None = None
    label: str | None = None

    def __post_init__(self) -> None:
        if self.version is not None and self.label is not None:
            raise InputError(
                "version and label exclude each other: give one of them, got"
                f" {self.version} and {self.label}"
            )
        if self.version is not None and not 0 <= self.version < 2**63:
            raise InputError(f"version must be from 0 to {2**63 - 1}, got {self.version}")

    def __str__(self) -> str:
        if self.version is not None:
            return f"model {self.name} version {self.version}"
        return f"model {self.name}" + (f" label {self.label}" if self.label else "")


@dataclasses.dataclass(frozen=True)
class VersionStatus:
    """The state of a version of a model.

    Attributes:
        version: Its number.
        state: One of the values of `STATES`.
        error: Reason of a failure; empty if there is none.
    """

    version: int
    state: str
    error: str = ""

    def __str__(self) -> str:
        return f"version {self.version} is {self.state}" + (
            f" ({self.error})" if self.error else ""
        )


@dataclasses.dataclass(frozen=True)
class TensorInfo:
    """An input or output of a signature.

    Attributes:
        dtype: numpy's name of its type; `object` for bytes.
        shape: Sizes, -1 where any will do; None if even their number is open.
    """

    dtype: str
    shape: tuple[int, ...] | None


@dataclasses.dataclass(frozen=True)
class SignatureInfo:
    """The inputs and outputs of a signature, by name."""

    inputs: Mapping[str, TensorInfo]
    outputs: Mapping[str, TensorInfo]


@dataclasses.dataclass(frozen=True)
class ModelMetadata:
    """State of a version, as the server reports it.

    Attributes:
        version: Its number.
        signatures: By name.
    """

    version: int
    signatures: Mapping[str, SignatureInfo]


def dtype_name(dtype: int | str) -> str:
    """Numpy's name of a type, from its number or from its name in REST; itself if it has none.

    >>> dtype_name(5), dtype_name("DT_INT16"), dtype_name("DT_FLOAT"), dtype_name("DT_QINT8")
    ('int16', 'int16', 'float32', 'DT_QINT8')
    """
    if isinstance(dtype, int):
        return _NUMPY_NAMES.get(dtype, f"DataType {dtype}")
    plain = _OTHER_NAMES.get(dtype, dtype.removeprefix("DT_").lower())
    return plain if plain in DATA_TYPES else dtype
