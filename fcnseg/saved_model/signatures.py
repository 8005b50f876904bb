"""The signatures of a served model: what it takes and gives, and an example request of each."""

from __future__ import annotations

import dataclasses
import functools
import gzip
import math
from collections.abc import Collection
from pathlib import Path
from typing import Any

import keras
import nibabel as nib
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from fcnseg.inference import Segmenter
from fcnseg.networks.keras_compat import write_archive
from fcnseg.saved_model.nifti.signature import make_segment_nifti
from fcnseg.saved_model.session import DEFAULT_SIGNATURE

SEGMENT_VOLUME = "segment_volume"
SEGMENT_NIFTI = "segment_nifti"
MODEL_INFO = "model_info"
ALL = (DEFAULT_SIGNATURE, SEGMENT_VOLUME, SEGMENT_NIFTI, MODEL_INFO)
"""The names of all signatures."""

# TensorFlow Serving refuses a request without inputs, so even `model_info` has one.
UNUSED = tf.TensorSpec(None, tf.int32, name="unused")

Arrays = dict[str, npt.NDArray[Any]]

# The example NIfTI file passes for a CT: this wide, with voxels of such lengths; a slab suffices.
_WIDTH_MM = 90.0
_SPACING_MM = (0.5, 8.0)
_SLICES = 12


@dataclasses.dataclass(frozen=True, eq=False)
class ServedModel:
    """A segmenter and how it is served.

    Attributes:
        segmenter: The networks and their info.
        accept: Codes of implausible images that `segment_nifti` does not refuse.
    """

    segmenter: Segmenter
    accept: tuple[str, ...] = ()

    @functools.cached_property
    def signatures(self) -> dict[str, tf.types.experimental.GenericFunction]:
        """The functions that are served, by name; they give outputs by name."""
        segmenter, info_json = self.segmenter, self.segmenter.info.to_json()

        @tf.function(input_signature=[UNUSED])
        def model_info(unused: tf.Tensor) -> dict[str, tf.Tensor]:
            del unused
            return {"info_json_bytes": tf.constant(info_json)}

        return {
            DEFAULT_SIGNATURE: segmenter.predict_patches,
            SEGMENT_VOLUME: segmenter.segment_volume,
            SEGMENT_NIFTI: make_segment_nifti(segmenter, accept=self.accept),
            MODEL_INFO: model_info,
        }

    def write(self, directory: Path, *, names: Collection[str] = ALL) -> None:
        """Writes the SavedModel, unchecked, with the signatures of these names."""
        archive = keras.export.ExportArchive()
        for model in self.segmenter.models:
            archive.track(model)
        for name in names:
            # Of a `tf.function` TensorFlow would build a second graph while it saves.
            graph = self.signatures[name].get_concrete_function()
            inputs, _ = graph.structured_input_signature
            archive.add_endpoint(name, graph, list(inputs))
        write_archive(archive, directory)

    def example_requests(self) -> dict[str, Arrays]:
        """Makes a small request for each signature, always the same: HU from air to bone.

        The volumes have another spacing than the model and need several windows along z.
        """
        info = self.segmenter.info
        draw = np.random.default_rng(0)
        spacing = np.array(info.spacing_mm, np.float32) * np.float32(1.25)
        shape = (info.window[0] * 3 // 2, info.window[1] // 2, info.window[2] // 2)
        volume = draw.integers(-1000, 1000, shape).astype(np.int16)
        patches = draw.uniform(-1000, 1000, (1, *info.window, 1)).astype(np.float32)
        return {
            DEFAULT_SIGNATURE: {"patches": patches},
            SEGMENT_VOLUME: {"volume": volume, "spacing": spacing},
            SEGMENT_NIFTI: {"nifti_bytes": np.array(_example_nifti(spacing, draw), object)},
            MODEL_INFO: {"unused": np.zeros((), np.int32)},
        }


def _example_nifti(spacing: npt.NDArray[np.float32], draw: np.random.Generator) -> bytes:
    """Makes a `.nii.gz` file with axes in another order than the model's, and a scale."""
    steps = np.clip(spacing.astype(np.float64), *_SPACING_MM)
    shape = [_SLICES, *(math.ceil(_WIDTH_MM / step) for step in steps[1:])]
    affine = np.zeros((4, 4))  # i runs to superior, j to left, k to posterior
    affine[2, 0], affine[0, 1], affine[1, 2], affine[3, 3] = *steps * (1, -1, -1), 1
    image = nib.Nifti1Image(draw.integers(0, 1000, shape).astype(np.int16), affine)
    image.set_sform(affine, code="scanner")
    image.set_qform(affine, code="scanner")
    image.header.set_slope_inter(2, -1000)
    return gzip.compress(image.to_bytes(), mtime=0)
