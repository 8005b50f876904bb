"""Objectives by name: what validation on complete volumes says of the best network of a run."""

from __future__ import annotations

import math
from collections.abc import Sequence

import keras

from fcnseg.errors import InputError, did_you_mean
from fcnseg.evaluation.scores import OrganScores, score_organs, without_ignored
from fcnseg.extras import require_extra
from fcnseg.inference.segmenter import make_segmenter
from fcnseg.records import Dataset, DatasetInfo
from fcnseg.runs.model_info import ModelInfo
from fcnseg.runs.run_folder import BEST_MODEL_FILE
from fcnseg.sampling import make_volume_dataset
from fcnseg.training import TrainingResult

_DICE = "val_dice"
_SURFACE = "val_surface_dice"


def objective_names(organs: Sequence[str]) -> list[str]:
    """The objectives that a dataset has: Dice and surface Dice, of all organs and of each."""
    return [
        name
        for score in (_DICE, _SURFACE)
        for name in (score, *(f"{score}_{organ}" for organ in organs))
    ]


def check_objective(name: str, info: DatasetInfo, *, ignore_label: int | None = None) -> None:
    """Checks that a dataset has an objective, and that it can be computed.

    Args:
        name: Name of the objective.
        info: Manifest of the dataset.
        ignore_label: Class index of voxels to ignore.

    Raises:
        InputError: If it has not, and the message names those that it has; or if its organ is in no
            validation case. An ignored organ has none.
        MissingExtraError: If it is a surface Dice, and surface-distance is not installed.
    """
    organs = [each for k, each in enumerate(info.class_names) if k not in (0, ignore_label)]
    known = objective_names(organs)
    if name not in known:
        raise InputError(
            f"objective must be one of {', '.join(known)}, got {name}{did_you_mean(name, known)}"
        )
    voxels = info.splits["validation"].class_histogram
    organ = _organ(name)
    if organ is not None and not voxels[info.class_names.index(organ)]:
        raise InputError(
            f"objective must be of an organ in a validation case, got {name}: {organ} is in none"
        )
    if name.startswith(_SURFACE):
        require_extra("surface_distance")


def _organ(name: str) -> str | None:
    """The organ of an objective; None if it is the mean of all."""
    kind = _SURFACE if name.startswith(_SURFACE) else _DICE
    return name.removeprefix(kind).removeprefix("_") or None


def measure(
    name: str, result: TrainingResult, dataset: Dataset, *, ignore_label: int | None = None
) -> float:
    """Gives the value of an objective for the best network of a run so far.

    Args:
        name: Name of the objective; Dice is read from the run's history, and surface Dice computed,
            with 2 mm of tolerance.
        result: The run, finished or not.
        dataset: Its dataset.
        ignore_label: Class index of voxels to ignore.

    Returns:
        The value, 0 to 1; NaN if no network was kept, or the organ is in no validation case.
    """
    if not result.best_epoch:
        return math.nan
    if not name.startswith(_SURFACE):
        # Every validation adds to each column, and the first of the best networks is kept.
        dices = result.history[_DICE]
        return result.history[name][dices.index(result.best_dice)]
    organs, organ = _surface_dice(result, dataset, ignore_label), _organ(name)
    if organ is None:
        counted = [each for k, each in enumerate(organs, start=1) if k != ignore_label]
        score = OrganScores.mean(counted)
    else:
        score = organs[dataset.info.class_names.index(organ) - 1]
    return math.nan if score.surface_dice is None else score.surface_dice


def _surface_dice(
    result: TrainingResult, dataset: Dataset, ignore_label: int | None
) -> list[OrganScores]:
    """The mean scores of each organ over the validation cases."""
    network = keras.models.load_model(result.run_dir / BEST_MODEL_FILE, compile=False)
    segmenter = make_segmenter(network, ModelInfo.read(result.run_dir))
    cases = []
    for record in make_volume_dataset(dataset, "validation"):
        mask = segmenter.segment_model_grid(record["image"]).numpy()
        pair = without_ignored(record["label"].numpy(), mask, ignore_label)
        info = dataset.info
        cases.append(score_organs(*pair, num_classes=info.num_classes, spacing=info.spacing_mm))
    return [OrganScores.mean(scores) for scores in zip(*cases, strict=True)]
