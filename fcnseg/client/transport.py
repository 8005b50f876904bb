"""The calls that a client makes, whatever carries them."""

from __future__ import annotations

from typing import Any, Protocol

import numpy.typing as npt

from fcnseg.client.served_model import ModelMetadata, ModelSpec, VersionStatus

Arrays = dict[str, npt.NDArray[Any]]


class Transport(Protocol):
    """Calls of a model server; each raises `CallError` if it fails, and may run in many threads."""

    def predict(
        self, model: ModelSpec, signature_name: str, inputs: Arrays, *, timeout_s: float
    ) -> Arrays:
        """Runs a signature, and gives its outputs by name."""

    def status(self, model: ModelSpec, *, timeout_s: float) -> tuple[VersionStatus, ...]:
        """The states of the model's versions."""

    def metadata(self, model: ModelSpec, *, timeout_s: float) -> ModelMetadata:
        """The signatures of the model."""

    def close(self) -> None:
        """Ends the connection; calls that run fail."""
