"""A session that runs a SavedModel as TensorFlow Serving does.

The server drives the C++ session runtime by the tensor names of a signature. Python's eager loader
is another runtime: it accepts models that the server refuses. Therefore the server's behaviour is
tested here: at export, in tests, and by the local server.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from tensorflow.core.framework import types_pb2
from tensorflow.core.protobuf import config_pb2, error_codes_pb2

from fcnseg.errors import FcnsegError, ModelError, one_line

DEFAULT_SIGNATURE = "serving_default"
PEAK_BYTES = "peak_bytes"
"""Key of the largest memory of a process among its replies."""

_SERVE_TAG = "serve"
# The server is built without XLA: a function with this attribute fails there at its first request.
_MUST_COMPILE = "_XlaMustCompile"
_MAX_AXES = 32  # feeding an array of higher rank, possible in numpy 2, ends the process

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
    """A loaded SavedModel; `run` may be called from several threads."""

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
        self._callables: dict[tuple[str, ...], Callable[..., list[npt.NDArray[Any]]]] = {}
        self._lock = threading.Lock()

    def run(
        self,
        signature_name: str,
        inputs: Arrays,
        *,
        output_filter: Sequence[str] = (),
    ) -> dict[str, npt.NDArray[Any]]:
        """Runs a signature.

        Args:
            signature_name: One of `signatures`.
            inputs: An array for each input of the signature; bytes are arrays of objects.
            output_filter: Outputs wanted; all if empty.

        Returns:
            Outputs by name.

        Raises:
            StatusError: With the server's code and message.
        """
        signature = self.signature(signature_name)
        _check_inputs(signature.inputs, inputs)
        aliases = _checked_outputs(signature.outputs, output_filter)
        names = sorted(signature.inputs)
        runner = self._callable(signature_name, names, aliases)
        try:
            values = runner(*(np.asarray(inputs[name]) for name in names))
        except tf.errors.OpError as error:
            raise StatusError(error_codes_pb2.Code.Name(error.error_code), error.message) from error
        return {name: as_array(value) for name, value in zip(aliases, values, strict=True)}

    def signature(self, name: str) -> Any:
        """Gives the `SignatureDef` of a name.

        Raises:
            StatusError: If there is none with that name.
        """
        if name not in self.signatures:
            raise StatusError("FAILED_PRECONDITION", f'Serving signature key "{name}" not found.')
        return self.signatures[name]

    def _callable(
        self, signature_name: str, names: Sequence[str], aliases: Sequence[str]
    ) -> Callable[..., list[npt.NDArray[Any]]]:
        """Makes a callable for a signature; unlike `Session.run` it feeds arrays of any shape."""
        key = (signature_name, *aliases)
        signature = self.signatures[signature_name]
        with self._lock:
            if key not in self._callables:
                options = config_pb2.CallableOptions(
                    feed=[signature.inputs[name].name for name in names],
                    fetch=[signature.outputs[alias].name for alias in aliases],
                )
                self._callables[key] = self._session._make_callable_from_options(options)
            return self._callables[key]


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


def _check_inputs(expected: Mapping[str, Any], given: Arrays) -> None:
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
    for name, array in given.items():
        if np.ndim(array) > _MAX_AXES:
            raise StatusError(
                "INVALID_ARGUMENT",
                f"input tensor {name} must have at most {_MAX_AXES} axes, got {np.ndim(array)}",
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
