"""A SavedModel with the signatures that the page calls, whose mask is that of two thresholds."""

from __future__ import annotations

from pathlib import Path

import tensorflow as tf
from small_models import make_info

ORGAN_HU, BONE_HU = 20, 200
NAMES = ("background", "soft tissue", "bone")


class Thresholds(tf.Module):
    """Segments a NIfTI of int16, gzip or not, whose header is the usual 352 bytes."""

    def __init__(self):
        super().__init__()
        info = make_info(class_names=NAMES).to_json()
        string = tf.TensorSpec([], tf.string, name="nifti_bytes")
        self.segment_nifti = tf.function(self._segment, input_signature=[string])
        self.model_info = tf.function(
            lambda unused: {"info_json_bytes": tf.constant(info)},
            input_signature=[tf.TensorSpec([], tf.int32, name="unused")],
        )

    def _segment(self, nifti_bytes):
        is_gzip = tf.equal(tf.strings.substr(nifti_bytes, 0, 2), b"\x1f\x8b")
        file = tf.cond(
            is_gzip,
            lambda: tf.io.decode_compressed(nifti_bytes, "GZIP"),
            lambda: tf.identity(nifti_bytes),
        )
        hu = tf.io.decode_raw(tf.strings.substr(file, 352, -1), tf.int16)
        labels = tf.cast(hu > ORGAN_HU, tf.uint8) + tf.cast(hu > BONE_HU, tf.uint8)
        parts = [
            tf.strings.substr(file, 0, 70),
            tf.constant(b"\x02\x00\x08\x00"),  # uint8, of 8 bits
            tf.strings.substr(file, 74, 352 - 74),
            tf.strings.substr(tf.io.serialize_tensor(labels), -tf.size(labels), tf.size(labels)),
        ]
        return {
            "labels_nifti_bytes": tf.strings.join(parts),
            "voxel_counts": tf.math.bincount(
                tf.cast(labels, tf.int32), minlength=3, maxlength=3, dtype=tf.int64
            ),
        }


def write_threshold_model(folder: Path):
    module = Thresholds()
    signatures = {name: getattr(module, name) for name in ("segment_nifti", "model_info")}
    tf.saved_model.save(module, folder, signatures=signatures)
