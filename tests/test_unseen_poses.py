"""Augmentation pays: with it a network knows patients in poses that no training case has."""

from __future__ import annotations

import dataclasses

import pytest
import yaml

from fcnseg.config import (
    AugmentationConfig,
    Config,
    InferenceConfig,
    LossConfig,
    ModelConfig,
    PatchConfig,
    TrainingConfig,
)
from fcnseg.testing.phantom import LABEL_MAP, Pose, make_phantom
from fcnseg.training import train
from fcnseg.volumes import write_volume
from pipelines.convert_ct import ConvertCt

SPACING = (8.0, 8.0, 8.0)  # mm: training takes a minute and a half
SHAPE = (33, 41, 52)  # holds the patients of these poses
ORGANS = ("artery", "vein", "liver", "spleen", "stomach")  # the others are a few voxels so coarse
# A phantom lies within 5 degrees of straight and 8 mm of the middle; each of these is turned and
# shifted by more about and along every axis.
UNSEEN = (
    Pose((17.0, -19.0, 16.0), 1.15, (20.0, -25.0, 20.0)),
    Pose((-18.0, 16.0, 19.0), 0.87, (-25.0, 20.0, 20.0)),
    Pose((19.0, 17.0, -18.0), 0.87, (20.0, 20.0, -25.0)),
    Pose((-16.0, -18.0, -17.0), 1.15, (-20.0, -20.0, -20.0)),
)
TRAINING_CASES = 4

# That of Roth et al. 2018, and scale. Their voxels are about 0.8 mm long, so the paper's numbers of
# voxels are divided by ten.
AUGMENTATION = AugmentationConfig(
    rotation_degrees=(20, 20, 20),
    translation_voxels=(2, 2, 2),
    deformation_voxels=(0.4, 0.4, 0.4),
    control_spacing_voxels=(2.4, 2.4, 2.4),
    scale=(0.85, 1.15),
)
CONFIG = Config(
    model=ModelConfig(filters=(8, 16, 32, 64), norm="instance"),
    patches=PatchConfig(size=(16, 24, 24), batch_size=4, shuffle_buffer=32),
    loss=LossConfig(name="dice_cross_entropy"),
    training=TrainingConfig(epochs=1, steps_per_epoch=600, learning_rate=1e-2),
    inference=InferenceConfig(overlap=(8, 12, 12)),
)


def write_records(folder):
    """Patients to train on as they lie, and others to validate on in unseen poses."""
    poses = {f"train_{number}": Pose() for number in range(TRAINING_CASES)}
    poses |= {f"validation_{number}": pose for number, pose in enumerate(UNSEEN)}
    rows = ["case_id,image,label,split"]
    for seed, (case_id, pose) in enumerate(poses.items()):
        volumes = make_phantom(seed, spacing=SPACING, shape=SHAPE, pose=pose)
        names = [f"{case_id}_{kind}.nii.gz" for kind in ("image", "label")]
        for volume, name in zip(volumes, names, strict=True):
            write_volume(volume, folder / name)
        rows.append(",".join([case_id, *names, case_id.split("_")[0]]))
    (folder / "cases.csv").write_text("\n".join(rows))
    classes = {name: list(LABEL_MAP.classes[name]) for name in ("background", *ORGANS)}
    label_map = {"classes": classes, "unlisted": "background"}
    (folder / "label_map.yaml").write_text(yaml.safe_dump(label_map, sort_keys=False))
    ConvertCt(
        cases=str(folder / "cases.csv"),
        label_map=str(folder / "label_map.yaml"),
        output=str(folder / "records"),
        spacing_mm=SPACING,
    ).run()
    return folder / "records"


@pytest.mark.slow
@pytest.mark.timeout(1200)  # on a busy machine
def test_augmentation_reaches_the_dice_without_it_in_unseen_poses(tmp_path):
    """Of seeds 0 and 1, Dice 0.758 and 0.786 with it, 0.706 and 0.701 without."""
    records = write_records(tmp_path)
    augmentation = {"without": AugmentationConfig(), "with": AUGMENTATION}
    dice = {
        name: train(
            dataclasses.replace(CONFIG, augmentation=changes), records, tmp_path / name
        ).best_dice
        for name, changes in augmentation.items()
    }
    assert dice["with"] >= dice["without"]
    assert dice["with"] > 0.6
