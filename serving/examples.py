"""Classification and regression of `tf.Example` messages by a loaded model.

A signature of TensorFlow 2 names its method `predict` whatever it does, so the method is checked
only where `--enable_signature_method_name_check` asks for it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from tensorflow.core.framework import types_pb2
from tensorflow_serving.apis import (
    classification_pb2,
    inference_pb2,
    input_pb2,
    regression_pb2,
)

from fcnseg.saved_model.session import DEFAULT_SIGNATURE, SavedModelSession, StatusError

from .statuses import invalid
from .tensors import MAX_REPEATED_BYTES

CLASSIFY, REGRESS = "tensorflow/serving/classify", "tensorflow/serving/regress"
_INPUTS, _CLASSES, _SCORES, _OUTPUTS = "inputs", "classes", "scores", "outputs"

Array = npt.NDArray[Any]
Outputs = Mapping[str, Array]


@dataclasses.dataclass(frozen=True)
class ExampleRunner:
    """Runs signatures of a model on examples.

    Attributes:
        session: The loaded model.
        check_method_name: Refuse a signature whose method is another one.
        timeout_s: Gives the seconds that a run may take, None for no limit.
    """

    session: SavedModelSession
    check_method_name: bool
    timeout_s: Callable[[], float | None]

    def classify(
        self, signature_name: str, given: input_pb2.Input
    ) -> classification_pb2.ClassificationResult:
        """Gives labels and scores for each example.

        Raises:
            StatusError: If the signature does not classify, or there is no example.
        """
        signature = self._signature(signature_name)
        self._check_classify(signature)
        names = [signature.outputs[k].name for k in (_CLASSES, _SCORES) if k in signature.outputs]
        outputs, count = self._run(signature, given, names)
        return _classifications(signature, outputs, count)

    def regress(
        self, signature_name: str, given: input_pb2.Input
    ) -> regression_pb2.RegressionResult:
        """Gives a value for each example.

        Raises:
            StatusError: If the signature does not regress, or there is no example.
        """
        signature = self._signature(signature_name)
        self._check_regress(signature)
        outputs, count = self._run(signature, given, [signature.outputs[_OUTPUTS].name])
        return _regressions(signature, outputs, count)

    def infer(
        self, tasks: Sequence[inference_pb2.InferenceTask], given: input_pb2.Input
    ) -> list[inference_pb2.InferenceResult]:
        """Runs several signatures on the same examples at once.

        Raises:
            StatusError: If the tasks are not of one model and one input, or any is not valid.
        """
        signatures = self._task_signatures(tasks)
        if len({s.inputs[_INPUTS].name for s in signatures}) > 1:
            raise invalid("Input tensor must be the same for all Signatures.")
        names = sorted({info.name for s in signatures for info in s.outputs.values()})
        outputs, count = self._run(signatures[0], given, names)
        results = []
        for task, signature in zip(tasks, signatures, strict=True):
            result = inference_pb2.InferenceResult()
            if task.method_name == CLASSIFY:
                found = _classifications(signature, outputs, count)
                result.classification_result.CopyFrom(found)
            else:
                result.regression_result.CopyFrom(_regressions(signature, outputs, count))
            results.append(result)
        return results

    def _task_signatures(self, tasks: Sequence[inference_pb2.InferenceTask]) -> list[Any]:
        names: set[str] = set()
        signatures = []
        for task in tasks:
            if not task.model_spec.name:
                raise invalid("Found ModelSpec with an empty model name.")
            if task.model_spec.name != tasks[0].model_spec.name:
                raise invalid(
                    "All ModelSpecs in a MultiInferenceRequest must access the same model name."
                )
            name = task.model_spec.signature_name or DEFAULT_SIGNATURE
            if name in names:
                raise invalid(f"Duplicate evaluation of signature: {name}")
            names.add(name)
            if name not in self.session.signatures:
                raise invalid(f"Requested signature not found in model graph: {name}")
            signatures.append(self.session.signatures[name])
            self._check_task(task.method_name, signatures[-1])
        return signatures

    def _check_task(self, method: str, signature: Any) -> None:
        if method == CLASSIFY:
            self._check_classify(signature)
        elif method == REGRESS:
            self._check_regress(signature)
        else:
            raise StatusError("UNIMPLEMENTED", f"Unsupported signature method_name: {method}")

    def _signature(self, name: str) -> Any:
        name = name or DEFAULT_SIGNATURE
        if name not in self.session.signatures:
            raise invalid(f"No signature was found with the name: {name}")
        return self.session.signatures[name]

    def _check_classify(self, signature: Any) -> None:
        self._check_method(signature, CLASSIFY, "classification")
        if len(signature.inputs) != 1:
            raise invalid("Expected one input Tensor.")
        if len(signature.outputs) not in (1, 2):
            count = len(signature.outputs)
            raise invalid(f"Expected one or two output Tensors, found {count}")
        if _INPUTS not in signature.inputs:
            raise invalid(f"No classification inputs found in SignatureDef: {signature}")
        if not {_CLASSES, _SCORES} & set(signature.outputs):
            raise invalid(
                "Expected classification signature outputs to contain at least one of"
                f' "{_CLASSES}" or "{_SCORES}". Signature was: {signature}'
            )

    def _check_regress(self, signature: Any) -> None:
        self._check_method(signature, REGRESS, "regression")
        if len(signature.inputs) != 1:
            raise invalid("Expected one input Tensor.")
        if len(signature.outputs) != 1:
            raise invalid("Expected one output Tensor.")
        if _INPUTS not in signature.inputs:
            raise invalid(f"No regression inputs found in SignatureDef: {signature}")
        if _OUTPUTS not in signature.outputs:
            raise invalid(f"No regression outputs found in SignatureDef: {signature}")

    def _check_method(self, signature: Any, method: str, kind: str) -> None:
        if self.check_method_name and signature.method_name != method:
            raise invalid(
                f"Expected {kind} signature method_name to be {method}. Was:"
                f" {signature.method_name}"
            )

    def _run(self, signature: Any, given: input_pb2.Input, names: list[str]) -> tuple[Outputs, int]:
        """Feeds the examples, and gives the tensors wanted and the number of examples."""
        examples = _serialized(given)
        feeds = {signature.inputs[_INPUTS].name: examples}
        values = self.session.run_tensors(feeds, names, timeout_s=self.timeout_s())
        return dict(zip(names, values, strict=True)), len(examples)


def _serialized(given: input_pb2.Input) -> Array:
    """Examples as bytes; those of a context begin with it."""
    context, examples = b"", given.example_list.examples
    if given.WhichOneof("kind") == "example_list_with_context":
        context = given.example_list_with_context.context.SerializeToString()
        examples = given.example_list_with_context.examples
    if not examples:
        raise invalid("Input is empty.")
    if len(examples) * len(context) > MAX_REPEATED_BYTES:
        raise invalid(
            f"{len(examples)} examples with a context of {len(context)} bytes must take at most"
            f" {MAX_REPEATED_BYTES} bytes"
        )
    serialized = (context + example.SerializeToString() for example in examples)
    return np.fromiter(serialized, object, len(examples))


def _classifications(
    signature: Any, outputs: Outputs, count: int
) -> classification_pb2.ClassificationResult:
    classes = _class_output(signature, outputs, _CLASSES, types_pb2.DT_STRING, count)
    scores = _class_output(signature, outputs, _SCORES, types_pb2.DT_FLOAT, count)
    given = [array for array in (classes, scores) if array is not None]
    if len({array.shape[1] for array in given}) > 1:
        widths = " vs. ".join(str(array.shape[1]) for array in given)
        raise invalid(f"Tensors class and score should match in dim_size(1). Got {widths}")
    result = classification_pb2.ClassificationResult()
    for row in range(count):
        classifications = result.classifications.add()
        for column in range(given[0].shape[1]):
            added = classifications.classes.add()
            if classes is not None:
                added.label = classes[row, column].decode(errors="replace")
            if scores is not None:
                added.score = scores[row, column]
    return result


def _class_output(
    signature: Any, outputs: Outputs, key: str, dtype: int, count: int
) -> Array | None:
    if key not in signature.outputs:
        return None
    array = outputs[signature.outputs[key].name]
    if array.ndim != 2:  # (batch, classes)
        raise invalid(f"Expected Tensor shape: [batch_size num_classes] but got {_shape(array)}")
    if _dtype(array) != dtype:
        wanted, got = types_pb2.DataType.Name(dtype), types_pb2.DataType.Name(_dtype(array))
        raise invalid(f"Expected {key} Tensor of {wanted}. Got: {got}")
    if len(array) != count:
        raise invalid(f"Expected {key} output batch size of {count}. Got: {len(array)}")
    return array


def _regressions(signature: Any, outputs: Outputs, count: int) -> regression_pb2.RegressionResult:
    array = outputs[signature.outputs[_OUTPUTS].name]
    if array.ndim != 1 and not (array.ndim == 2 and array.shape[1] == 1):  # (batch,), (batch, 1)
        raise invalid(
            "Expected output Tensor shape to be either [batch_size] or [batch_size, 1] but got"
            f" {_shape(array)}"
        )
    if len(array) != count:
        raise invalid(f"Input batch size did not match output batch size: {count} vs. {len(array)}")
    if _dtype(array) != types_pb2.DT_FLOAT:
        got = types_pb2.DataType.Name(_dtype(array))
        raise invalid(f"Expected output Tensor of DT_FLOAT.  Got: {got}")
    result = regression_pb2.RegressionResult()
    for value in array.ravel().tolist():
        result.regressions.add(value=value)
    return result


def _dtype(array: Array) -> int:
    is_bytes = array.dtype.kind in "OS"
    return types_pb2.DT_STRING if is_bytes else tf.as_dtype(array.dtype).as_datatype_enum


def _shape(array: Array) -> str:
    return "[" + ",".join(map(str, array.shape)) + "]"
