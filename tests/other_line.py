"""Writes what one line of TensorFlow hands to the other; as a script, in the other's environment.

`python other_line.py FOLDER` makes runs in FOLDER/run and FOLDER/trained, the model of the first in
FOLDER/models, the weights of both in FOLDER/NAME.weights.h5, records in FOLDER/records, and in
FOLDER/outputs.npz what the networks answer and the mask of an oblique volume.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from small_models import make_hu, make_oblique_volume, write_run
from small_records import write_small_dataset
from small_runs import ALL_STATE

from fcnseg.config import override
from fcnseg.inference import load_run, make_segmenter, predict_volume
from fcnseg.records import Dataset
from fcnseg.saved_model.export import export_run
from fcnseg.training import train

PATCH = (1, 8, 12, 12, 1)  # both networks take it


def main(folder: Path) -> None:
    """Writes everything."""
    write_run(folder / "run")
    export_run(folder / "run", folder / "models")
    records = write_small_dataset(folder / "records")
    changes = {"training.epochs": 1, "model.deep_supervision": 1, "model.filters": (2, 4, 4)}
    trained = override(ALL_STATE, {**changes, "patches.size": (8, 12, 12)})
    train(trained, Dataset.open(records), folder / "trained")
    hu = make_hu(PATCH).astype(np.float32)
    networks = {name: load_run(folder / name)[0] for name in ("run", "trained")}
    outputs = {name: network(hu).numpy() for name, network in networks.items()}
    for name, network in networks.items():
        network.save_weights(folder / f"{name}.weights.h5")
    mask = predict_volume(make_segmenter(*load_run(folder / "run")), make_oblique_volume())
    np.savez(folder / "outputs.npz", hu=hu, mask=mask, **outputs)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
