"""The signature that segments the bytes of a NIfTI file."""

from __future__ import annotations

from collections.abc import Callable, Collection

import tensorflow as tf

from fcnseg.evaluation.class_names import workbench_table
from fcnseg.inference.checks import as_fed, checked
from fcnseg.inference.segmenter import Segmenter
from fcnseg.saved_model.nifti.grid import read_grid
from fcnseg.saved_model.nifti.header import read_header, read_layout
from fcnseg.saved_model.nifti.mask_file import encode_mask
from fcnseg.saved_model.nifti.plausibility import checked_geometry, checked_hu
from fcnseg.saved_model.nifti.voxels import read_hu, start_of

NIFTI_BYTES = tf.TensorSpec([], tf.string, name="nifti_bytes")


def make_segment_nifti(
    segmenter: Segmenter, *, accept: Collection[str] = ()
) -> Callable[[tf.Tensor], dict[str, tf.Tensor]]:
    """Makes the function that segments a NIfTI file as `fcnseg predict` does.

    Args:
        segmenter: Segments volumes in canonical orientation.
        accept: Codes of `fcnseg.codes.ACCEPTABLE`: implausible images that are not refused.

    Returns:
        A function of the bytes of a `.nii` or `.nii.gz` file, a scalar string. Its outputs are
        `labels_nifti_bytes`, the mask as a `.nii` file on the grid of the image, and
        `voxel_counts`, int64 (classes,). It raises `InvalidArgumentError` for a file that is not a
        complete volume, or not a CT.
    """
    label_table = workbench_table(segmenter.info.class_names)

    @tf.function(input_signature=[NIFTI_BYTES])
    def segment_nifti(nifti_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        file_bytes = _checked_scalar(nifti_bytes)
        header = read_header(start_of(file_bytes))
        layout = read_layout(header, max_voxels=segmenter.info.max_voxels)
        grid = read_grid(header, layout.shape, accept=accept)
        affine = checked_geometry(grid.affine, layout.shape, accept=accept)
        with tf.control_dependencies([affine]):
            file_bytes = tf.identity(file_bytes)
        hu = checked_hu(read_hu(file_bytes, header, layout), accept=accept)
        found = segmenter.segment_volume(grid.to_canonical(hu), grid.spacing)
        labels = grid.from_canonical(found["labels"])
        mask = encode_mask(labels, header, layout, steps=grid.steps, label_table=label_table)
        return {"labels_nifti_bytes": mask, "voxel_counts": found["voxel_counts"]}

    return segment_nifti


def _checked_scalar(nifti_bytes: tf.Tensor) -> tf.Tensor:
    fed = as_fed(nifti_bytes)
    fed = checked(
        fed,
        tf.equal(tf.rank(fed), 0),
        "nifti_bytes must be one string, the bytes of a file, got shape {}",
        tf.shape(fed),
    )
    return tf.reshape(fed, [])
