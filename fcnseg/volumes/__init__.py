"""Volumes of CT and labels: files, geometry, orientation, resampling and label maps.

Axis order is (z, y, x) everywhere; this package is the only place that converts it. It needs
neither TensorFlow nor Beam.
"""

from fcnseg.volumes.digest import image_digest
from fcnseg.volumes.folders import case_id_of, list_images, list_volumes, pair_by_name
from fcnseg.volumes.formats.dicom.outputs import DicomOutputs
from fcnseg.volumes.formats.dicom.rtstruct import write_rtstruct
from fcnseg.volumes.formats.dicom.seg_writing import write_dicom_seg
from fcnseg.volumes.formats.dicom.segments import Segment
from fcnseg.volumes.formats.dicom.series import Series, list_series
from fcnseg.volumes.formats.dicom.source import DicomSource, read_dicom_source
from fcnseg.volumes.formats.nifti import check_nifti_name, write_mask, write_parts, write_volume
from fcnseg.volumes.formats.reading import read_ct, read_geometry, read_label
from fcnseg.volumes.geometry import Geometry, voxel_ml
from fcnseg.volumes.label_map import LabelMap
from fcnseg.volumes.orientation import (
    check_same_voxels,
    from_canonical,
    is_turned,
    to_canonical,
    turn_like,
)
from fcnseg.volumes.resampling import (
    resample_image,
    resample_label,
    resample_label_back,
    resampled_shape,
)
from fcnseg.volumes.volume import AIR_HU, Volume, check_same_grid
from fcnseg.volumes.zyx import Axis, Shape, Triple, Zyx

__all__ = [
    "AIR_HU",
    "Axis",
    "DicomOutputs",
    "DicomSource",
    "Geometry",
    "LabelMap",
    "Segment",
    "Series",
    "Shape",
    "Triple",
    "Volume",
    "Zyx",
    "case_id_of",
    "check_nifti_name",
    "check_same_grid",
    "check_same_voxels",
    "from_canonical",
    "image_digest",
    "is_turned",
    "list_images",
    "list_series",
    "list_volumes",
    "pair_by_name",
    "read_ct",
    "read_dicom_source",
    "read_geometry",
    "read_label",
    "resample_image",
    "resample_label",
    "resample_label_back",
    "resampled_shape",
    "to_canonical",
    "turn_like",
    "voxel_ml",
    "write_dicom_seg",
    "write_mask",
    "write_parts",
    "write_rtstruct",
    "write_volume",
]
