"""A session that runs a SavedModel as TensorFlow Serving does.

The server drives the C++ session runtime by the tensor names of a signature. Python's eager loader
is another runtime: it accepts models that the server refuses. Therefore the server's behaviour is
tested here: at export, in tests, and by the local server.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from tensorflow.core.framework import types_pb2
from tensorflow.core.protobuf import config_pb2, error_codes_pb2
from tensorflow.python.client import pywrap_tf_session

from fcnseg.errors import FcnsegError, ModelError, one_line

DEFAULT_SIGNATURE = "serving_default"
PEAK_BYTES = "peak_bytes"
"""Key of the largest memory of a process among its replies."""
MAX_AXES = 32
"""Feeding an array of higher rank, possible in numpy 2, ends the process."""

_SERVE_TAG = "serve"
# The server is built without XLA: a function with this attribute fails there at its first request.
_MUST_COMPILE = "_XlaMustCompile"

Arrays = Mapping[str, npt.NDArray[Any]]


class StatusError(FcnsegError):
    """A request that TensorFlow Serving answers with an error.

    Attributes:
        code: Name of the canonical code, as in `INVALID_ARGUMENT`.
        message: Message of the server.
    """

    def __init__(self, code: str, message: str) -> None:
        """Makes an error of a canonical code."""
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message


class SavedModelSession:
    """A loaded SavedModel; it may be run from several threads."""

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        """Loads a SavedModel.

        Args:
            directory: The folder that contains `saved_model.pb`.

        Raises:
            ModelError: If it is not a SavedModel, or needs XLA, which the server lacks.
        """
        graph = tf.Graph()
        self._session = tf.compat.v1.Session(graph=graph)
        try:
            with graph.as_default():
                meta_graph = tf.compat.v1.saved_model.load(
                    self._session, [_SERVE_TAG], os.fspath(directory)
                )
        except (OSError, RuntimeError, ValueError, tf.errors.OpError) as error:
            raise ModelError(f"not a SavedModel: {directory}: {one_line(error)}") from error
        compiled = [
            function.signature.name
            for function in meta_graph.graph_def.library.function
            if function.attr[_MUST_COMPILE].b
        ]
        if compiled:
            raise ModelError(f"a served model must not need XLA, got {compiled} in {directory}")
        self.signatures = dict(meta_graph.signature_def)

    def close(self) -> None:
        """Releases the memory; a run that has not ended is CANCELLED."""
        self._session.close()

    def run(
        self,
        signature_name: str,
        inputs: Arrays,
        *,
        output_filter: Sequence[str] = (),
        timeout_s: float | None = None,
    ) -> dict[str, npt.NDArray[Any]]:
        """Runs a signature.

        Args:
            signature_name: One of `signatures`.
            inputs: An array for each input of the signature; bytes are arrays of objects.
            output_filter: Outputs wanted; all if empty.
            timeout_s: Seconds after which the run is ended; None lets it run to its end.

        Returns:
            Outputs by name.

        Raises:
            StatusError: With the server's code and message.
        """
        signature = self.signature(signature_name)
        _check_names(signature.inputs, inputs)
        _check_axes(inputs)
        aliases = _checked_outputs(signature.outputs, output_filter)
        feeds = {signature.inputs[name].name: np.asarray(inputs[name]) for name in signature.inputs}
        fetches = [signature.outputs[alias].name for alias in aliases]
        values = self.run_tensors(feeds, fetches, timeout_s=timeout_s)
        return dict(zip(aliases, values, strict=True))

    def run_tensors(
        self, feeds: Arrays, fetches: Sequence[str], *, timeout_s: float | None = None
    ) -> list[npt.NDArray[Any]]:
        """Runs the graph from tensors to tensors.

        Unlike `Session.run` it feeds arrays of any shape, as the server does, and its errors have
        the runtime's own words.

        Args:
            feeds: An array for each name of a tensor.
            fetches: Names of tensors.
            timeout_s: Seconds after which the run is ended; None lets it run to its end.

        Raises:
            StatusError: With the server's code and message.
        """
        arrays = {self._output(name): array for name, array in feeds.items()}
        outputs = [self._output(name) for name in fetches]
        try:
            with _run_options(timeout_s) as options:
                values = self._session._call_tf_sessionrun(options, arrays, outputs, [], None)
        except tf.errors.OpError as error:
            raise StatusError(error_codes_pb2.Code.Name(error.error_code), error.message) from error
        return [as_array(value) for value in values]

    def check_input_names(self, signature_name: str, names: Collection[str]) -> None:
        """Checks that inputs are those of a signature, before they are read.

        Raises:
            StatusError: If there is no such signature, or an input is missing or unknown.
        """
        _check_names(self.signature(signature_name).inputs, names)

    def signature(self, name: str) -> Any:
        """Gives the `SignatureDef` of a name.

        Raises:
            StatusError: If there is none with that name.
        """
        if name not in self.signatures:
            raise StatusError("FAILED_PRECONDITION", f'Serving signature key "{name}" not found.')
        return self.signatures[name]

    def _output(self, name: str) -> Any:
        """Gives the runtime's handle of a tensor."""
        return self._session.graph.get_tensor_by_name(name)._as_tf_output()


@contextlib.contextmanager
def _run_options(timeout_s: float | None) -> Iterator[Any]:
    """Gives a run's options as a buffer of the runtime, which the block's end frees."""
    options = config_pb2.RunOptions()
    if timeout_s is not None:
        options.timeout_in_ms = max(1, round(timeout_s * 1000))
    buffer = pywrap_tf_session.TF_NewBufferFromString(options.SerializeToString())
    try:
        yield buffer
    finally:
        pywrap_tf_session.TF_DeleteBuffer(buffer)


def replay(directory: str, requests: str, replies: str) -> None:
    """Runs requests from a file on a SavedModel and writes the replies to another.

    Args:
        directory: The SavedModel's folder.
        requests: An `.npz` file with an array for each `signature/input`, as `bytes_as_numbers`
            gives it.
        replies: The `.npz` file to write, with such an array for each `signature/output`, and the
            largest memory of the process as `PEAK_BYTES`.
    """
    session = SavedModelSession(directory)
    inputs: dict[str, dict[str, npt.NDArray[Any]]] = {}
    with np.load(requests) as arrays:
        for key, array in arrays.items():
            signature, name = key.split("/")
            is_bytes = session.signature(signature).inputs[name].dtype == types_pb2.DT_STRING
            value = np.array(array.tobytes(), object) if is_bytes else array
            inputs.setdefault(signature, {})[name] = value
    outputs: dict[str, Any] = {
        f"{signature}/{name}": bytes_as_numbers(value)
        for signature, given in inputs.items()
        for name, value in session.run(signature, given).items()
    }
    outputs[PEAK_BYTES] = _peak_bytes()
    np.savez(replies, **outputs)


def bytes_as_numbers(value: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Gives bytes, a scalar of objects, as uint8 (count,), and any other array as it is.

    numpy stores objects only by pickling.
    """
    return np.frombuffer(value.item(), np.uint8) if value.dtype == object else value


def as_array(value: Any) -> npt.NDArray[Any]:
    """Gives an array; of bytes, a scalar of objects, as numpy would cut zeros at their end."""
    return np.asarray(value, object if isinstance(value, bytes) else None)


def _peak_bytes() -> int:
    """The largest memory of this process so far; 0 where there is no /proc of Linux to tell."""
    status = Path("/proc/self/status")  # `getrusage` counts that of the parent process too
    if not status.exists():
        return 0
    return int(status.read_text().partition("VmHWM:")[2].split()[0]) * 1024


def _check_names(expected: Mapping[str, Any], given: Collection[str]) -> None:
    want, have = set(expected), set(given)
    if len(want) != len(have):
        raise StatusError(
            "INVALID_ARGUMENT",
            f"input size does not match signature: {len(have)}!={len(want)} len({_names(have)})"
            f" != len({_names(want)}). Sent extra: {_names(have - want)}. Missing but required:"
            f" {_names(want - have)}.",
        )
    for name in sorted(have - want):
        raise StatusError(
            "INVALID_ARGUMENT",
            f"input tensor alias not found in signature: {name}. Inputs expected to be in the set"
            f" {_names(want)}.",
        )


def _check_axes(given: Arrays) -> None:
    for name, array in given.items():
        if np.ndim(array) > MAX_AXES:
            raise StatusError(
                "INVALID_ARGUMENT",
                f"input tensor {name} must have at most {MAX_AXES} axes, got {np.ndim(array)}",
            )


def _checked_outputs(outputs: Mapping[str, Any], wanted: Sequence[str]) -> list[str]:
    for number, name in enumerate(wanted):
        if name not in outputs:
            raise StatusError(
                "INVALID_ARGUMENT",
                f"output tensor alias not found in signature: {name} Outputs expected to be in the"
                f" set {_names(outputs)}.",
            )
        if name in wanted[:number]:
            raise StatusError("INVALID_ARGUMENT", f"duplicate output tensor alias: {name}")
    return list(wanted) or sorted(outputs)


def _names(names: Any) -> str:
    return "{" + ",".join(sorted(names)) + "}"
