"""A client of a served model, for TensorFlow Serving or the local server, without TensorFlow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fcnseg.client.messages import message_class
from fcnseg.client.tensors import read_tensor, write_tensor
from fcnseg.conversion.check_options import CheckOptions
from fcnseg.conversion.gate import Gate
from fcnseg.errors import FcnsegError, InputError
from fcnseg.extras import require_extra
from fcnseg.runs.model_info import ModelInfo
from fcnseg.volumes import Volume, from_canonical, to_canonical

_PREDICT = "/tensorflow.serving.PredictionService/Predict"
_PredictRequest = message_class("tensorflow.serving.PredictRequest")
_PredictResponse = message_class("tensorflow.serving.PredictResponse")

# gRPC's own limit is 4 MB, less than one scan. 512 x 512 x 2000 int16 are 1 GB.
_NO_LIMIT = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
TIMEOUT_S = 600.0  # a whole scan takes minutes on a CPU

_MOST_PORT = 2**16 - 1

Arrays = dict[str, npt.NDArray[Any]]


class ServerError(FcnsegError, ConnectionError):
    """A server is unreachable, lacks the model, or returns what no model of fcnseg does."""


class SegmentationClient:
    """Segments volumes with a served model.

    A context manager: the connection is closed when the block ends.
    """

    def __init__(
        self, server: str, *, model_name: str = "fcnseg", timeout_s: float = TIMEOUT_S
    ) -> None:
        """Makes a client; nothing is sent yet.

        Args:
            server: `HOST:PORT` of the server's gRPC interface.
            model_name: Name of the model on the server.
            timeout_s: Seconds to wait for an answer.

        Raises:
            InputError: If the server is no such address.
        """
        _check_address(server)
        self._grpc = require_extra("grpc")
        self.server = server
        self.model_name = model_name
        self.timeout_s = timeout_s
        self._channel = self._grpc.insecure_channel(server, options=_NO_LIMIT)
        self._call = self._channel.unary_unary(
            _PREDICT,
            request_serializer=_PredictRequest.SerializeToString,
            response_deserializer=_PredictResponse.FromString,
        )

    def __enter__(self) -> SegmentationClient:
        return self

    def __exit__(self, *exception: object) -> None:
        self._channel.close()

    def model_info(self) -> ModelInfo:
        """Requests the classes, spacing and window of the served model.

        Raises:
            ServerError: If there is no answer, or the model is not one of fcnseg's.
        """
        outputs = self._predict("model_info", {"unused": np.zeros((), np.int32)})
        try:
            return ModelInfo.from_json(outputs["info_json_bytes"].item(), source=self._model)
        except (KeyError, ValueError) as error:
            raise ServerError(f"{self._model} is not a model of fcnseg: {error}") from error

    def segment(self, volume: Volume, *, accept: Sequence[str] = ()) -> npt.NDArray[np.uint8]:
        """Segments a volume of any orientation and spacing.

        Args:
            volume: HU (z, y, x), int16.
            accept: Codes of implausible findings to accept, as in the conversion.

        Returns:
            Class ids (z, y, x) on the volume's own grid; `model_info` contains their names.

        Raises:
            InputError: If the volume cannot be a CT, or is refused, as for too many voxels.
            ServerError: If there is no answer, or not a mask.
        """
        if volume.array.dtype != np.int16:
            raise InputError(f"volume must be HU as int16, got {volume.array.dtype}")
        given = volume.array.view()
        given.flags.writeable = False  # the caller's array is kept: padding becomes air in a copy
        gate = Gate(CheckOptions(accept=tuple(accept)))
        checked, _ = gate.check(volume.with_array(given), case_id="")
        canonical = to_canonical(checked)
        spacing = np.array(canonical.spacing, np.float32)
        outputs = self._predict("segment_volume", {"volume": canonical.array, "spacing": spacing})
        labels = outputs.get("labels")
        if labels is None or labels.dtype != np.uint8 or labels.shape != canonical.shape:
            raise ServerError(f"{self._model} gave no mask of shape {canonical.shape}")
        return from_canonical(labels, volume).astype(np.uint8, copy=False)

    @property
    def _model(self) -> str:
        return f"model {self.model_name} at {self.server}"

    def _predict(self, signature_name: str, inputs: Arrays) -> Arrays:
        request: Any = _PredictRequest()
        request.model_spec.name = self.model_name
        request.model_spec.signature_name = signature_name
        for name, array in inputs.items():
            write_tensor(array, request.inputs[name])
        try:
            response = self._call(request, timeout=self.timeout_s)
        except self._grpc.RpcError as error:
            raise self._error(error) from error
        try:
            return {name: read_tensor(tensor) for name, tensor in response.outputs.items()}
        except InputError as error:
            raise ServerError(f"{self._model} gave what is no tensor: {error}") from error

    def _error(self, error: Any) -> FcnsegError:
        """Translates a failed call into an error for the user."""
        code, details = error.code(), error.details() or ""
        if code == self._grpc.StatusCode.INVALID_ARGUMENT:
            rule = details.partition("\n")[0].removeprefix("assertion failed: ")
            return InputError(f"{self._model} refused the volume: {rule}")
        reasons = {
            self._grpc.StatusCode.UNAVAILABLE: f"no server at {self.server}",
            self._grpc.StatusCode.DEADLINE_EXCEEDED: (
                f"no answer from {self.server} within {self.timeout_s:g} s"
            ),
            self._grpc.StatusCode.NOT_FOUND: f"no {self._model}",
        }
        return ServerError(f"{reasons.get(code, f'{self._model} failed: {code.name}')}: {details}")


def _check_address(server: str) -> None:
    """Checks that an address has a host and a port; gRPC would try for minutes to find it."""
    host, _, port = server.rpartition(":")
    is_port = port.isascii() and port.isdecimal() and 0 < int(port) <= _MOST_PORT
    if not server.startswith("unix:") and (not host or not is_port or "://" in server):
        raise InputError(f"server must be HOST:PORT, as in 127.0.0.1:8500, got {server}")
