"""Converters of a case for `bench_convert.py`, each as its own documentation describes.

Imports are inside functions, as each runs in the Python that has its packages.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

ORGANS = ("spleen", "kidney_right", "kidney_left", "gallbladder", "liver", "stomach", "pancreas")
Triple = tuple[float, float, float]


def fcnseg(folder: Path, image: str, label: str, spacing: Triple) -> None:
    from fcnseg.conversion.cases import Case
    from fcnseg.conversion.preprocessing import Preprocessing
    from fcnseg.conversion.statistics import HuCounts, case_facts
    from fcnseg.records import TFRecordWriter, encode_chunks
    from fcnseg.volumes import LabelMap

    preprocessing = Preprocessing(LabelMap.consecutive(("background", *ORGANS)), spacing)
    record = preprocessing.convert(Case("case", image, label, "case")).record
    case_facts(record, "train")
    HuCounts.of(record)
    with (folder / "case.tfrecord").open("wb") as file:
        TFRecordWriter(file).write(*encode_chunks(record))


def nnunet(folder: Path, image: str, label: str, spacing: Triple) -> None:
    from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    plans = PlansManager(nnunet_plans(spacing))
    labels = {name: index for index, name in enumerate(("background", *ORGANS))}
    DefaultPreprocessor(verbose=False).run_case_save(
        str(folder / "nnunet"),
        [image],
        label,
        plans,
        plans.get_configuration("3d_fullres"),
        {"channel_names": {"0": "CT"}, "labels": labels, "file_ending": ".nii.gz"},
    )


def nnunet_plans(spacing: Triple) -> dict[str, Any]:
    """Makes the parts of nnU-Net's plans for preprocessing; the resampling is its default."""
    resampling = {"order_z": 0, "force_separate_z": None}
    return {
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "foreground_intensity_properties_per_channel": {
            "0": {"mean": 80.0, "std": 60.0, "percentile_00_5": -50.0, "percentile_99_5": 250.0}
        },
        "configurations": {
            "3d_fullres": {
                "architecture": {},
                "spacing": list(spacing),
                "patch_size": [96, 96, 96],
                "normalization_schemes": ["CTNormalization"],
                "use_mask_for_norm": [False],
                "resampling_fn_data": "resample_data_or_seg_to_shape",
                "resampling_fn_data_kwargs": {"is_seg": False, "order": 3, **resampling},
                "resampling_fn_seg": "resample_data_or_seg_to_shape",
                "resampling_fn_seg_kwargs": {"is_seg": True, "order": 1, **resampling},
            }
        },
    }


def monai(_: Path, image: str, label: str, spacing: Triple) -> None:
    from monai.transforms import Compose, LoadImaged, Orientationd, Spacingd

    keys = ("image", "label")
    transforms = Compose(
        [
            LoadImaged(keys, ensure_channel_first=True),
            Orientationd(keys, axcodes="RAS"),
            Spacingd(keys, pixdim=spacing[::-1], mode=("bilinear", "nearest")),
        ]
    )
    transforms({"image": image, "label": label})


def floor(_: Path, image: str, label: str, __: Triple) -> None:
    for file in (image, label):
        loaded: Any = nib.load(file)
        np.asarray(loaded.dataobj)


CONTENDERS: dict[str, Callable[[Path, str, str, Any], None]] = {
    each.__name__: each for each in (fcnseg, nnunet, monai, floor)
}
PACKAGES = {"fcnseg": "apache_beam", "nnunet": "nnunetv2", "monai": "monai", "floor": "nibabel"}
"""Packages that each requires."""
