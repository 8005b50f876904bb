"""Calls of a model server over gRPC."""

from __future__ import annotations

import http
import re
from typing import Any

from fcnseg.client.endpoint import Credentials, Endpoint
from fcnseg.client.failures import CODES_OF_HTTP, CallError
from fcnseg.client.messages import message_class
from fcnseg.client.served_model import (
    STATES,
    ModelMetadata,
    ModelSpec,
    SignatureInfo,
    TensorInfo,
    VersionStatus,
    dtype_name,
)
from fcnseg.client.tensors import read_tensor, write_tensor
from fcnseg.client.transport import Arrays
from fcnseg.extras import require_extra

_APIS = "tensorflow.serving"
_SIGNATURE_DEF = "signature_def"
# gRPC's own limit is 4 MB, less than one scan. 512 x 512 x 2000 int16 are 1 GB.
_NO_LIMIT = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
_MAX_BYTES = 2**31 - 1  # of a message of protobuf
_HTTP_STATUS = re.compile(r"http2 header with status: (\d+)")
_OF_PROXIES = (401, 403, 413, 429, 502, 503, 504)
# Words of gRPC for a call that never left.
_UNSENT = re.compile(r"failed to connect|(DNS|[Nn]ame) resolution failed|empty address list")


class GrpcTransport:
    """A channel to a server; see `Transport`."""

    def __init__(self, endpoint: Endpoint, credentials: Credentials) -> None:
        """Makes a channel; nothing is sent yet.

        Raises:
            MissingExtraError: If gRPC is not installed.
            InputError: If the certificates to trust cannot be read.
        """
        self._grpc = require_extra("grpc")
        address = f"{endpoint.host}:{endpoint.port}"
        self._headers = tuple(credentials.headers.items())
        if endpoint.has_tls:
            trusted = self._grpc.ssl_channel_credentials(credentials.ca_pem())
            self._channel = self._grpc.secure_channel(address, trusted, options=_NO_LIMIT)
        else:
            self._channel = self._grpc.insecure_channel(address, options=_NO_LIMIT)

    def predict(
        self, model: ModelSpec, signature_name: str, inputs: Arrays, *, timeout_s: float
    ) -> Arrays:
        """Runs a signature; see `Transport`."""
        size = sum(array.nbytes for array in inputs.values())
        if size > _MAX_BYTES:
            reason = f"a message of gRPC may have at most {_MAX_BYTES} bytes, got {size}"
            raise CallError("INVALID_ARGUMENT", reason, is_begun=False)
        request = self._request("PredictRequest", model)
        request.model_spec.signature_name = signature_name
        for name, array in inputs.items():
            write_tensor(array, request.inputs[name])
        response = self._call("PredictionService/Predict", request, "PredictResponse", timeout_s)
        return {name: read_tensor(tensor) for name, tensor in response.outputs.items()}

    def status(self, model: ModelSpec, *, timeout_s: float) -> tuple[VersionStatus, ...]:
        """The states of the model's versions; see `Transport`."""
        request = self._request("GetModelStatusRequest", model)
        method, reply = "ModelService/GetModelStatus", "GetModelStatusResponse"
        found = self._call(method, request, reply, timeout_s).model_version_status
        return tuple(
            VersionStatus(
                each.version, STATES.get(each.state, "UNKNOWN"), each.status.error_message
            )
            for each in found
        )

    def metadata(self, model: ModelSpec, *, timeout_s: float) -> ModelMetadata:
        """The signatures of the model; see `Transport`."""
        request = self._request("GetModelMetadataRequest", model)
        request.metadata_field.append(_SIGNATURE_DEF)
        method, reply = "PredictionService/GetModelMetadata", "GetModelMetadataResponse"
        response = self._call(method, request, reply, timeout_s)
        packed = response.metadata[_SIGNATURE_DEF].value
        found: Any = message_class(f"{_APIS}.SignatureDefMap").FromString(packed)
        signatures = {name: _signature(each) for name, each in found.signature_def.items()}
        return ModelMetadata(response.model_spec.version.value, signatures)

    def close(self) -> None:
        """Closes the channel; see `Transport`."""
        self._channel.close()

    def _request(self, name: str, model: ModelSpec) -> Any:
        request: Any = message_class(f"{_APIS}.{name}")()
        request.model_spec.name = model.name
        if model.version is not None:
            request.model_spec.version.value = model.version
        if model.label is not None:
            request.model_spec.version_label = model.label
        return request

    def _call(self, method: str, request: Any, reply: str, timeout_s: float) -> Any:
        call = self._channel.unary_unary(
            f"/{_APIS}.{method}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=message_class(f"{_APIS}.{reply}").FromString,
        )
        try:
            return call(request, timeout=timeout_s, metadata=self._headers)
        except self._grpc.RpcError as error:
            code, details = _of_a_proxy(error.code().name, error.details() or "")
            is_ours = code == "DEADLINE_EXCEEDED" and "Deadline Exceeded" in details
            is_begun = not (code == "UNAVAILABLE" and _UNSENT.search(details))
            is_begun = is_begun and code != "RESOURCE_EXHAUSTED"
            raise CallError(code, "sent" if is_ours else details, is_begun=is_begun) from error
        except ValueError as error:  # the channel was closed by another thread
            raise CallError("CANCELLED", str(error)) from error


def _of_a_proxy(code: str, details: str) -> tuple[str, str]:
    """The code and details of a failure that a proxy reports by a status of HTTP."""
    found = _HTTP_STATUS.search(details)
    status = int(found[1]) if found else 0
    if status not in _OF_PROXIES:
        return code, details
    return CODES_OF_HTTP[status], f"{status} {http.HTTPStatus(status).phrase}"


def _signature(message: Any) -> SignatureInfo:
    return SignatureInfo(_tensors(message.inputs), _tensors(message.outputs))


def _tensors(messages: Any) -> dict[str, TensorInfo]:
    return {
        name: TensorInfo(
            dtype_name(info.dtype),
            None
            if info.tensor_shape.unknown_rank
            else tuple(dim.size for dim in info.tensor_shape.dim),
        )
        for name, info in messages.items()
    }
