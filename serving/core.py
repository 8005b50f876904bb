"""The answers of a server, the same over each transport: one method for each call of the API."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import numpy.typing as npt
from tensorflow.core.protobuf import error_codes_pb2
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    input_pb2,
    model_management_pb2,
    model_pb2,
    predict_pb2,
    regression_pb2,
)

from fcnseg.errors import one_line
from fcnseg.saved_model.session import DEFAULT_SIGNATURE, SavedModelSession, StatusError

from .admission import Call
from .examples import ExampleRunner
from .metrics import Metrics
from .served_models import ServedModels
from .statuses import invalid
from .tensors import read_tensor, write_tensor

logger = logging.getLogger(__name__)

SIGNATURE_DEF = "signature_def"

Arrays = Mapping[str, npt.NDArray[Any]]
ResultT = TypeVar("ResultT")


def answered(work: Callable[[], ResultT]) -> ResultT:
    """Does a call's work, all of whose errors become statuses.

    Raises:
        StatusError: If there is any error.
    """
    try:
        return work()
    except StatusError:
        raise
    except MemoryError as error:
        raise StatusError("RESOURCE_EXHAUSTED", f"out of memory: {one_line(error)}") from error
    except Exception as error:  # else the client gets no cause, or no answer at all
        logger.exception("a call failed")
        raise StatusError("INTERNAL", f"{type(error).__name__}: {one_line(error)}") from error


@dataclasses.dataclass(frozen=True)
class ServerCore:
    """Answers requests with the models of a server.

    Attributes:
        models: The models.
        metrics: Where requests and times are counted.
        tensor_content: Reply with raw bytes instead of single values.
        check_method_name: Classify and regress only by signatures made for it.
    """

    models: ServedModels
    metrics: Metrics
    tensor_content: bool = False
    check_method_name: bool = False

    def predict(
        self, request: predict_pb2.PredictRequest, call: Call
    ) -> predict_pb2.PredictResponse:
        """Runs a signature on tensors of messages."""
        _check_spec(request)
        spec, output_filter = request.model_spec, list(request.output_filter)
        name, signature_name = spec.name, spec.signature_name or DEFAULT_SIGNATURE
        with self._session(spec) as (version, session):
            session.check_input_names(signature_name, request.inputs)
            inputs = {key: read_tensor(key, tensor) for key, tensor in request.inputs.items()}
            del request, spec  # the arrays are all that is needed
            with self.metrics.run(name, "Predict"):
                outputs = session.run(
                    signature_name, inputs, output_filter=output_filter, timeout_s=call.left_s()
                )
        response = predict_pb2.PredictResponse()
        _fill_spec(response.model_spec, name, version, signature_name)
        for alias, array in outputs.items():
            write_tensor(array, response.outputs[alias], as_content=self.tensor_content)
        return response

    def predict_arrays(
        self,
        spec: model_pb2.ModelSpec,
        make_inputs: Callable[[Mapping[str, Any]], Arrays],
        call: Call,
    ) -> Arrays:
        """Runs a signature on arrays.

        Args:
            spec: The model, its version and signature.
            make_inputs: Makes the arrays from the `TensorInfo` of each input.
            call: The client's call.
        """
        with self._session(spec) as (_, session):
            name = spec.signature_name or DEFAULT_SIGNATURE
            if name not in session.signatures:
                raise invalid(f'Serving signature name: "{name}" not found in signature def')
            expected = session.signatures[name].inputs
            if not expected:
                shown = spec.signature_name or "DEFAULT"
                raise invalid(f"Failed to get input map for signature: {shown}")
            inputs = make_inputs(expected)
            with self.metrics.run(spec.name, "Predict"):
                return session.run(name, inputs, timeout_s=call.left_s())

    def classify(
        self, request: classification_pb2.ClassificationRequest, call: Call
    ) -> classification_pb2.ClassificationResponse:
        """Gives labels and scores for examples."""
        _check_spec(request)
        response = classification_pb2.ClassificationResponse()
        with self._examples(request.model_spec, request.input, call, "Classify") as (version, run):
            name = request.model_spec.signature_name
            response.result.CopyFrom(run.classify(name, request.input))
        _fill_spec(response.model_spec, request.model_spec.name, version, name)
        return response

    def regress(
        self, request: regression_pb2.RegressionRequest, call: Call
    ) -> regression_pb2.RegressionResponse:
        """Gives values for examples."""
        _check_spec(request)
        response = regression_pb2.RegressionResponse()
        with self._examples(request.model_spec, request.input, call, "Regress") as (version, run):
            name = request.model_spec.signature_name
            response.result.CopyFrom(run.regress(name, request.input))
        _fill_spec(response.model_spec, request.model_spec.name, version, name)
        return response

    def multi_inference(
        self, request: inference_pb2.MultiInferenceRequest, call: Call
    ) -> inference_pb2.MultiInferenceResponse:
        """Runs several signatures on the same examples."""
        response = inference_pb2.MultiInferenceResponse()
        spec = request.tasks[0].model_spec if request.tasks else model_pb2.ModelSpec()
        with self._examples(spec, request.input, call, "MultiInference") as (version, run):
            for task, result in zip(
                request.tasks, run.infer(request.tasks, request.input), strict=True
            ):
                result.model_spec.CopyFrom(task.model_spec)
                result.model_spec.version.value = version
                response.results.append(result)
        return response

    def model_metadata(
        self, request: get_model_metadata_pb2.GetModelMetadataRequest
    ) -> get_model_metadata_pb2.GetModelMetadataResponse:
        """Gives the signatures of a version."""
        _check_spec(request)
        if not request.metadata_field:
            raise invalid("GetModelMetadataRequest must specify at least one metadata_field")
        for field in request.metadata_field:
            if field != SIGNATURE_DEF:
                raise invalid(f"Metadata field {field} is not supported")
        model, wanted = self.models.find(request.model_spec)
        version, session = model.session(request.model_spec.name, wanted)
        signatures = get_model_metadata_pb2.SignatureDefMap()
        for name, signature in session.signatures.items():
            signatures.signature_def[name].CopyFrom(signature)
        response = get_model_metadata_pb2.GetModelMetadataResponse()
        response.model_spec.name = request.model_spec.name
        response.model_spec.version.value = version
        response.metadata[SIGNATURE_DEF].Pack(signatures)
        return response

    def model_status(
        self, request: get_model_status_pb2.GetModelStatusRequest
    ) -> get_model_status_pb2.GetModelStatusResponse:
        """Gives the state of one version, or of all so far, newest first; labels are ignored."""
        _check_spec(request)
        spec = request.model_spec
        version = int(spec.version.value) if spec.HasField("version") else None
        response = get_model_status_pb2.GetModelStatusResponse()
        statuses = self.models.statuses(spec.name, version)
        for number, status in sorted(statuses.items(), reverse=True):
            entry = response.model_version_status.add(version=number, state=status.state)
            entry.status.error_code = error_codes_pb2.Code.Value(status.error_code)
            entry.status.error_message = status.error_message
        return response

    def reload_config(
        self, request: model_management_pb2.ReloadConfigRequest, call: Call
    ) -> model_management_pb2.ReloadConfigResponse:
        """Serves other models, once those that are new are loaded."""
        if request.config.WhichOneof("config") != "model_config_list":
            raise invalid(
                "ServerModelConfig type not supported by HandleReloadConfigRequest. Only"
                " ModelConfigList is currently supported"
            )
        before = set(self.models.names)
        self.models.reload(request.config)
        self.models.wait_until_available(set(self.models.names) - before, call)
        return model_management_pb2.ReloadConfigResponse(status={"error_code": 0})

    @contextlib.contextmanager
    def _session(self, spec: model_pb2.ModelSpec) -> Iterator[tuple[int, SavedModelSession]]:
        model, wanted = self.models.find(spec)
        with model.call(wanted) as found:
            yield found

    @contextlib.contextmanager
    def _examples(
        self, spec: model_pb2.ModelSpec, given: input_pb2.Input, call: Call, api: str
    ) -> Iterator[tuple[int, ExampleRunner]]:
        with self._session(spec) as (version, session), self.metrics.run(spec.name, api):
            yield version, ExampleRunner(session, self.check_method_name, call.left_s)
        examples: Sequence[Any] = (
            given.example_list.examples or given.example_list_with_context.examples
        )
        self.metrics.count_examples(spec.name, len(examples))


def _check_spec(request: Any) -> None:
    if not request.HasField("model_spec"):
        raise invalid("Missing ModelSpec")


def _fill_spec(spec: model_pb2.ModelSpec, name: str, version: int, signature_name: str) -> None:
    spec.name, spec.signature_name = name, signature_name
    spec.version.value = version
