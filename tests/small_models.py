"""Networks of a few hundred weights, their info and run folders, for tests of what uses them."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from fcnseg.config import Config, InferenceConfig, ModelConfig, PatchConfig, write_config
from fcnseg.networks.build import build_fcn
from fcnseg.runs.model_info import MODEL_INFO_FILE, ModelInfo
from fcnseg.runs.run_folder import BEST_MODEL_FILE, CONFIG_FILE, HISTORY_FILE, RunManifest
from fcnseg.volumes import Volume

CLASSES = ("background", "liver", "spleen")
CONFIG = Config(
    model=ModelConfig(filters=(4, 8)),
    patches=PatchConfig(size=(8, 12, 10)),
    inference=InferenceConfig(overlap=(3, 5, 4), batch_size=3, max_voxels=100_000),
)
# Left, anterior, inferior, with two axes exchanged and oblique: nothing about it is canonical.
AFFINE = np.array(
    [
        [-1.5, 0.0, 0.13, 40.0],
        [0.13, 0.0, 1.49, -30.0],
        [0.0, -2.5, 0.0, 12.0],
        [0.0, 0.0, 0.0, 1.0],
    ]
)

CROP = ("field_of_view_implausible",)
"""What `--accept` must name for volumes of a few thousand voxels."""


def make_info(config: Config = CONFIG, **changes) -> ModelInfo:
    facts = {
        "class_names": CLASSES,
        "spacing_mm": (2.0, 2.0, 2.0),
        "hu_window": config.model.hu_window,
        "window": config.patches.size,
        "overlap": config.inference.overlap,
        "batch_size": config.inference.batch_size,
        "max_voxels": config.inference.max_voxels,
        "skip_air": config.inference.skip_air,
    }
    return ModelInfo(**{**facts, **changes})


def make_network(config: Config = CONFIG, *, num_classes=3, seed=0) -> keras.Model:
    """A network with random weights, so that every voxel of its window counts."""
    keras.utils.set_random_seed(seed)
    return build_fcn(config.model, num_classes=num_classes)


def in_bfloat16(values):
    """Values rounded one by one, as float32."""
    return values.astype(tf.bfloat16.as_numpy_dtype).astype(np.float32)


def make_hu(shape, *, seed=0):
    """Noise over smooth blobs, so that classes form regions and tell orientations apart."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(-400, 500, [size // 4 + 2 for size in shape])
    blobs = np.kron(coarse, np.ones([4] * len(shape)))[tuple(slice(0, size) for size in shape)]
    return (blobs + rng.normal(0, 30, shape)).astype(np.int16)


def make_oblique_volume(shape=(17, 20, 23), *, seed=0) -> Volume:
    return Volume(make_hu(shape, seed=seed), AFFINE)


def write_run(folder: Path, *, finished=True, seed=0, **changes) -> Path:
    """The folder that a training run of `CONFIG` leaves."""
    folder.mkdir(parents=True)
    write_config(CONFIG, folder / CONFIG_FILE)
    (folder / MODEL_INFO_FILE).write_text(make_info(**changes).to_json())
    make_network(seed=seed).save(folder / BEST_MODEL_FILE)
    (folder / HISTORY_FILE).write_text("epoch,val_dice_liver,val_dice_spleen\n1,0.625,\n")
    if finished:
        RunManifest(
            best_dice=0.5,
            best_epoch=1,
            parameters=1,
            weights_sha256="",
            versions={},
            devices=(),
            data="records",
            data_digest="0" * 64,
            config=CONFIG,
            started="2026-01-01T00:00:00+00:00",
            seconds=1.0,
            validation_seconds=0.0,
        ).write(folder)
    return folder
