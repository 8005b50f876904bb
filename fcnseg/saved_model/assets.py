"""The files beside an exported model, in `assets.extra`: warm-up requests, classes, model card."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import tensorflow as tf

from fcnseg.evaluation.class_names import SNAP_FILE
from fcnseg.extras import require_extra
from fcnseg.figures.palette import organ_rgb
from fcnseg.masks.label_tables import SLICER_FILE, itk_snap_label_descriptions, slicer_colours
from fcnseg.runs.model_info import MODEL_INFO_FILE, ModelInfo
from fcnseg.saved_model.model_card import CARD_FILE, CARD_JSON_FILE, ModelCard
from fcnseg.saved_model.session import DEFAULT_SIGNATURE
from fcnseg.saved_model.signatures import SEGMENT_NIFTI, SEGMENT_VOLUME, Arrays, ServedModel

ASSETS_FOLDER = "assets.extra"
WARM_UP_FILE = "tf_serving_warmup_requests"
CLASSES_FILE = "classes.json"


def write_assets(directory: Path, model: ServedModel, card: ModelCard) -> None:
    """Writes all of the files.

    Args:
        directory: The SavedModel.
        model: The model in it.
        card: Its card.

    Raises:
        MissingExtraError: If tensorflow-serving-api, which has the messages of warm-up requests, is
            not installed.
    """
    write_descriptions(directory, model.segmenter.info, card)
    _write_warm_up(directory / ASSETS_FOLDER / WARM_UP_FILE, warm_up_requests(model))


def write_descriptions(directory: Path, info: ModelInfo, card: ModelCard) -> None:
    """Writes all files of `write_assets` but the warm-up requests for TensorFlow Serving."""
    folder = directory / ASSETS_FOLDER
    folder.mkdir()
    texts = {
        MODEL_INFO_FILE: info.to_json() + "\n",
        CLASSES_FILE: json.dumps(_classes(info.class_names), indent=2) + "\n",
        SNAP_FILE: itk_snap_label_descriptions(info.class_names),
        SLICER_FILE: slicer_colours(info.class_names),
        CARD_FILE: card.to_markdown(),
        CARD_JSON_FILE: card.to_json() + "\n",
    }
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")


def warm_up_requests(model: ServedModel) -> dict[str, Arrays]:
    """Makes the requests that a server runs before a version is available, of a window or few.

    They let TensorFlow choose its kernels and reserve memory before a client waits for it.
    """
    info = model.segmenter.info
    volume = np.zeros(info.window, np.int16)
    return {
        DEFAULT_SIGNATURE: {"patches": volume.astype(np.float32)[np.newaxis, ..., np.newaxis]},
        SEGMENT_VOLUME: {"volume": volume, "spacing": np.array(info.spacing_mm, np.float32)},
        SEGMENT_NIFTI: model.example_requests()[SEGMENT_NIFTI],
    }


def _write_warm_up(path: Path, requests: Mapping[str, Arrays]) -> None:
    """Writes requests as TensorFlow Serving replays them: a TFRecord of `PredictionLog`."""
    prediction_log = require_extra("tensorflow_serving.apis.prediction_log_pb2")
    with tf.io.TFRecordWriter(str(path)) as writer:
        for signature, inputs in requests.items():
            log = prediction_log.PredictionLog()
            request = log.predict_log.request
            request.model_spec.signature_name = signature
            for name, value in inputs.items():
                request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
            writer.write(log.SerializeToString())


def _classes(class_names: tuple[str, ...]) -> list[dict[str, object]]:
    """The classes by index, with the colours of the palette; the background has none."""
    return [
        {"index": index, "name": name, "rgb": list(organ_rgb(index)) if index else None}
        for index, name in enumerate(class_names)
    ]
