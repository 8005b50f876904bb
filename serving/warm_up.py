"""Warm-up: the requests in a SavedModel that are run before it is served."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from pathlib import Path

import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_log_pb2

from fcnseg.saved_model.session import DEFAULT_SIGNATURE, SavedModelSession, StatusError

from .examples import ExampleRunner
from .statuses import invalid
from .tensors import read_tensor

logger = logging.getLogger(__name__)

WARM_UP_FILE = Path("assets.extra", "tf_serving_warmup_requests")
_MAX_REQUESTS = 1000  # the real server's limit


def load_session(folder: Path, *, iterations: int) -> SavedModelSession:
    """Loads a SavedModel, and runs its warm-up requests.

    Args:
        folder: The folder that contains `saved_model.pb`.
        iterations: How often each request is run; 0 leaves them out.

    Raises:
        ModelError: If it cannot be loaded.
        StatusError: If a request fails.
    """
    session = SavedModelSession(folder)
    path = folder / WARM_UP_FILE
    if iterations and path.exists():
        started = time.monotonic()
        try:
            for log in _logs(path):
                for _ in range(iterations):
                    _run(session, log)
        except BaseException:
            session.close()
            raise
        logger.info("%s is warmed up in %.1f s", folder, time.monotonic() - started)
    return session


def _logs(path: Path) -> Iterator[prediction_log_pb2.PredictionLog]:
    for number, record in enumerate(tf.compat.v1.io.tf_record_iterator(str(path))):
        if number >= _MAX_REQUESTS:
            raise invalid(f"Number of warmup records exceeds the maximum ({_MAX_REQUESTS})")
        yield prediction_log_pb2.PredictionLog.FromString(record)


def _run(session: SavedModelSession, log: prediction_log_pb2.PredictionLog) -> None:
    runner = ExampleRunner(session, check_method_name=False, timeout_s=lambda: None)
    kind = log.WhichOneof("log_type")
    if kind == "predict_log":
        _predict(session, log.predict_log.request)
    elif kind == "classify_log":
        request = log.classify_log.request
        runner.classify(request.model_spec.signature_name, request.input)
    elif kind == "regress_log":
        request = log.regress_log.request
        runner.regress(request.model_spec.signature_name, request.input)
    elif kind == "multi_inference_log":
        request = log.multi_inference_log.request
        runner.infer(request.tasks, request.input)
    else:
        raise StatusError("UNIMPLEMENTED", f"Unsupported log_type for warmup: {kind}")


def _predict(session: SavedModelSession, request: predict_pb2.PredictRequest) -> None:
    signature = request.model_spec.signature_name or DEFAULT_SIGNATURE
    inputs = {name: read_tensor(name, tensor) for name, tensor in request.inputs.items()}
    session.run(signature, inputs, output_filter=request.output_filter)
