"""Export of a run as a network of OpenVINO: quantised if so requested, then published.

A version is what OpenVINO Model Server loads, and a run folder too, which `fcnseg predict` takes.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from fcnseg.errors import InputError, ModelError
from fcnseg.extras import require_extra
from fcnseg.inference import load_run, make_segmenter
from fcnseg.inference.openvino_backend import graph_with_rounded_kernels, openvino_graph
from fcnseg.inference.openvino_network import OpenvinoNetwork
from fcnseg.inference.quantization import quantized
from fcnseg.records import Dataset
from fcnseg.records.folds import Fold
from fcnseg.runs import ModelInfo, Run
from fcnseg.runs.model_info import MODEL_INFO_FILE
from fcnseg.runs.published_network import PublishedNetwork
from fcnseg.runs.run_folder import OPENVINO_FILES
from fcnseg.sampling import make_training_dataset, make_volume_dataset
from fcnseg.saved_model.assets import write_descriptions
from fcnseg.saved_model.dice_lost import Int8Dice, check_dice, losses_of
from fcnseg.saved_model.model_card import ModelCard
from fcnseg.saved_model.options import ExportOptions
from fcnseg.saved_model.versions import check_runtime, publish
from fcnseg.storage.whole_file import make_folder
from fcnseg.training.callbacks import Validation
from fcnseg.training.preemption import StopRequest
from fcnseg.training.setting_checks import ignore_label

logger = logging.getLogger(__name__)

_TOLERANCE = 1e-5  # as in the check of a SavedModel


def export_for_openvino(
    runs: Sequence[Run], model_dir: str | os.PathLike[str], *, options: ExportOptions
) -> Path:
    """Publishes the best network of a run for OpenVINO; see `export_run`.

    Args:
        runs: One run.
        model_dir: See `export_run`.
        options: Settings of the export, whose backend is OpenVINO.
    """
    if len(runs) != 1:
        raise InputError(
            f"an export for OpenVINO must be of one run, got {len(runs)}: fcnseg predict averages"
            " several versions"
        )
    (run,) = runs
    for package in ("openvino", "nncf") if options.precision == "int8" else ("openvino",):
        require_extra(package)  # before minutes of work
    base = make_folder(model_dir, argument="model_dir")
    check_runtime(base, "openvino")
    model, info = load_run(run)
    info = dataclasses.replace(info, overlap=options.overlap or info.overlap)
    precision = options.precision or run.precision
    network = OpenvinoNetwork(openvino_graph(model, info.window))
    make_segmenter(network, info, backend="openvino")  # its checks come before minutes of work
    organs: tuple[Int8Dice, ...] = ()
    if precision == "int8":
        network, organs = _in_int8(network, dataclasses.replace(run, info=info), options)
    elif precision == "bfloat16":
        network = OpenvinoNetwork(graph_with_rounded_kernels(network.graph), precision)
    settings = {"runtime": "OpenVINO", "precision": precision, "overlap": list(info.overlap)}
    card = ModelCard.of([run], info, settings=settings, intended_use=options.intended_use)
    with tempfile.TemporaryDirectory(prefix=".tmp-", dir=base) as folder:
        saved = Path(folder) / "model"
        saved.mkdir()
        network.write(saved / OPENVINO_FILES[0])
        written = Run(saved, run.manifest, info).network_digest()
        PublishedNetwork(network.precision, written).write(saved)
        run.manifest.write(saved)
        (saved / MODEL_INFO_FILE).write_text(info.to_json() + "\n", encoding="utf-8")
        write_descriptions(saved, info, dataclasses.replace(card, int8_dice=organs))
        _check_written(network, saved, info)
        return publish(saved, base, keep=options.keep)


def _in_int8(
    network: OpenvinoNetwork, run: Run, options: ExportOptions
) -> tuple[OpenvinoNetwork, tuple[Int8Dice, ...]]:
    """Quantises a network, and compares it on the validation split."""
    dataset = _dataset_of(run, options.data)
    windows = _Windows(run, dataset, options.calibration_windows)
    graph = quantized(network.graph, windows, count=options.calibration_windows)
    in_int8 = OpenvinoNetwork(graph, "bfloat16")
    names = ("mean", *run.info.class_names[1:])
    scores = zip(names, *(_dice(each, run, dataset) for each in (network, in_int8)), strict=True)
    mean, *organs = (Int8Dice.of(*score) for score in scores)
    check_dice([*organs, mean], max_dice_loss=options.max_dice_loss)
    logger.info("validation Dice lost in int8: %s", losses_of([*organs, mean]))
    return in_int8, (*organs, mean)


def _dataset_of(run: Run, data: str | None) -> Dataset:
    """Opens the records that a run was trained on."""
    dataset = Dataset.open_named(run.manifest.data, by=run.folder, now=data)
    if dataset.digest != run.manifest.data_digest:
        raise InputError(
            f"data must be the records that {run.folder} was trained on, got others in"
            f" {dataset.folder}"
        )
    return dataset


def _fold_of(run: Run) -> Fold | None:
    return Fold.of(run.manifest.fold, run.manifest.folds)


@dataclasses.dataclass(frozen=True)
class _Windows:
    """Windows of the training split, the same each time.

    Attributes:
        run: The run, whose fold, patches and seed they have.
        dataset: Its records.
        count: Number of windows.
    """

    run: Run
    dataset: Dataset
    count: int

    def __iter__(self) -> Iterator[npt.NDArray[np.float32]]:
        config = self.run.manifest.config
        batches = make_training_dataset(
            self.dataset,
            dataclasses.replace(config.patches, batch_size=1),
            seed=config.training.seed,
            fold=_fold_of(self.run),
        )
        for batch in batches.take(self.count):
            yield batch.hu.numpy()


def _dice(network: OpenvinoNetwork, run: Run, dataset: Dataset) -> list[float]:
    """Validation Dice, mean over organs first, then of each organ."""
    validation = Validation(
        make_segmenter(network, run.info, backend="openvino"),
        make_volume_dataset(dataset, "validation", fold=_fold_of(run)),
        every=1,
        stop=StopRequest(),
        ignore_label=ignore_label(run.manifest.config, dataset.info),
    )
    return validation.score()


def _check_written(network: OpenvinoNetwork, saved: Path, info: ModelInfo) -> None:
    """Checks that the files give what the network gives."""
    draw = np.random.default_rng(0)
    window = tf.constant(draw.uniform(-1000, 1000, (1, *info.window, 1)).astype(np.float32))
    read = OpenvinoNetwork.read(saved / OPENVINO_FILES[0], network.precision)
    found, expected = (each.predictor()(window).numpy() for each in (read, network))
    largest = float(np.abs(found - expected).max())
    if not largest <= _TOLERANCE:
        raise ModelError(
            f"the network that was written gives other probabilities, by up to {largest:.2g}"
        )
