"""TensorFlow Serving's gRPC services, with the calls that clients of fcnseg's models use.

All other calls answer UNIMPLEMENTED.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent import futures
from typing import Any, TypeVar

import grpc
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from fcnseg.client.tensors import read_tensor, write_tensor
from fcnseg.errors import InputError, one_line
from fcnseg.saved_model.session import DEFAULT_SIGNATURE, StatusError

from .model_facts import SIGNATURE_DEF, model_metadata, model_status, wanted_version
from .model_versions import ModelVersions

_MAX_MESSAGE = 2**31 - 1  # bytes; the real server's limit, and protobuf's
_THREADS = 8  # calls at once; each call uses all cores anyway

logger = logging.getLogger(__name__)

ResponseT = TypeVar("ResponseT")


class PredictionService(prediction_service_pb2_grpc.PredictionServiceServicer):
    """Implements Predict and GetModelMetadata."""

    def __init__(self, versions: ModelVersions, *, tensor_content: bool) -> None:
        """Serves the newest of some versions.

        Args:
            versions: Versions of the model.
            tensor_content: Reply with raw bytes instead of single values.
        """
        self._versions = versions
        self._tensor_content = tensor_content

    def Predict(  # noqa: N802, the name of the call
        self, request: predict_pb2.PredictRequest, context: grpc.ServicerContext
    ) -> predict_pb2.PredictResponse:
        """Runs a signature."""
        return _answer(context, lambda: self._predict(request))

    def GetModelMetadata(  # noqa: N802, the name of the call
        self,
        request: get_model_metadata_pb2.GetModelMetadataRequest,
        context: grpc.ServicerContext,
    ) -> get_model_metadata_pb2.GetModelMetadataResponse:
        """Returns the signatures."""
        return _answer(context, lambda: self._metadata(request))

    def _predict(self, request: predict_pb2.PredictRequest) -> predict_pb2.PredictResponse:
        spec = request.model_spec
        version, session = self._versions.session(spec.name, wanted_version(spec))
        signature_name = spec.signature_name or DEFAULT_SIGNATURE
        outputs = session.run(
            signature_name,
            {name: _parsed(name, tensor) for name, tensor in request.inputs.items()},
            output_filter=request.output_filter,
        )
        response = predict_pb2.PredictResponse()
        response.model_spec.name = spec.name
        response.model_spec.version.value = version
        response.model_spec.signature_name = signature_name
        for name, array in outputs.items():
            write_tensor(array, response.outputs[name], as_content=self._tensor_content)
        return response

    def _metadata(
        self, request: get_model_metadata_pb2.GetModelMetadataRequest
    ) -> get_model_metadata_pb2.GetModelMetadataResponse:
        if not request.metadata_field:
            raise StatusError(
                "INVALID_ARGUMENT",
                "GetModelMetadataRequest must specify at least one metadata_field",
            )
        for field in request.metadata_field:
            if field != SIGNATURE_DEF:
                raise StatusError("INVALID_ARGUMENT", f"Metadata field {field} is not supported")
        return model_metadata(self._versions, request.model_spec)


class ModelService(model_service_pb2_grpc.ModelServiceServicer):
    """Implements GetModelStatus."""

    def __init__(self, versions: ModelVersions) -> None:
        """Serves the status of some versions."""
        self._versions = versions

    def GetModelStatus(  # noqa: N802, the name of the call
        self, request: get_model_status_pb2.GetModelStatusRequest, context: grpc.ServicerContext
    ) -> get_model_status_pb2.GetModelStatusResponse:
        """Returns the states of versions."""
        return _answer(context, lambda: model_status(self._versions, request.model_spec))


def start_grpc_server(
    versions: ModelVersions, address: str, *, tensor_content: bool
) -> tuple[grpc.Server, int]:
    """Starts the gRPC server.

    Args:
        versions: Versions of the model.
        address: `HOST:PORT`; port 0 takes a free one.
        tensor_content: Reply with raw bytes instead of single values.

    Returns:
        The running server and its port.

    Raises:
        InputError: If the port is taken.
    """
    server = grpc.server(
        futures.ThreadPoolExecutor(_THREADS),
        options=[
            ("grpc.max_send_message_length", _MAX_MESSAGE),
            ("grpc.max_receive_message_length", _MAX_MESSAGE),
            ("grpc.so_reuseport", 0),  # else a second server would silently share a used port
        ],
    )
    prediction = PredictionService(versions, tensor_content=tensor_content)
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(prediction, server)
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(ModelService(versions), server)
    try:
        port = server.add_insecure_port(address)
    except RuntimeError as error:
        raise InputError(f"port must be free, got {address}") from error
    server.start()
    return server, port


def _answer(context: grpc.ServicerContext, work: Callable[[], ResponseT]) -> ResponseT:
    """Gives the work's result; its error becomes the call's status."""
    try:
        return work()
    except StatusError as error:
        return context.abort(grpc.StatusCode[error.code], error.message)
    except MemoryError as error:
        return context.abort(
            grpc.StatusCode.RESOURCE_EXHAUSTED, f"out of memory: {one_line(error)}"
        )
    except Exception as error:  # else the client gets no cause, and the log only grpc's words
        logger.exception("a call failed")
        return context.abort(grpc.StatusCode.INTERNAL, f"{type(error).__name__}: {one_line(error)}")


def _parsed(name: str, tensor: Any) -> Any:
    try:
        return read_tensor(tensor)
    except InputError as error:
        raise StatusError("INVALID_ARGUMENT", f"tensor parsing error: {name}: {error}") from error
