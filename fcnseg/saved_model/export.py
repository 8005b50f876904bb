"""Export of trained runs as a SavedModel for TensorFlow Serving: checked, then published.

The model is written to a hidden folder, loaded in a fresh process by the server's runtime, compared
there with the results of this process, and only then renamed to the next version number.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras

from fcnseg.errors import ModelError
from fcnseg.extras import require_extra
from fcnseg.inference import Segmenter, load_runs, make_segmenter
from fcnseg.networks.precision import policies_of
from fcnseg.runs import ModelInfo, Run
from fcnseg.saved_model.assets import write_assets
from fcnseg.saved_model.memory import MemoryLimit, limit_memory
from fcnseg.saved_model.model_card import ModelCard
from fcnseg.saved_model.openvino_export import export_for_openvino
from fcnseg.saved_model.options import ExportOptions
from fcnseg.saved_model.self_check import check_saved_model
from fcnseg.saved_model.signatures import ServedModel
from fcnseg.saved_model.versions import check_runtime, publish
from fcnseg.storage.whole_file import make_folder

logger = logging.getLogger(__name__)

_AS_TRAINED = ExportOptions()


def export_run(
    run_dir: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    model_dir: str | os.PathLike[str],
    *,
    options: ExportOptions = _AS_TRAINED,
) -> Path:
    """Publishes the best network of a run, or of several, as the next version of a served model.

    A network of float16 is published in float32, as a CPU does not pool float16.

    Args:
        run_dir: Folder of a finished training run, or several, whose probabilities are averaged;
            for OpenVINO, one.
        model_dir: The served model's base folder, made if missing; versions are its children.
        options: Settings of the export.

    Returns:
        The version's folder.

    Raises:
        InputError: If a run is missing or unfinished, two do not fit together, or the folder cannot
            be written to.
        MissingExtraError: If tensorflow-serving-api is not installed; for OpenVINO, if that is not,
            or for int8 NNCF.
        ModelError: If the memory does not suffice for the networks, or the results of the server's
            runtime differ from those of this process, or int8 loses too much Dice; nothing is
            published then.
    """
    folders = [run_dir] if isinstance(run_dir, (str, os.PathLike)) else run_dir
    runs = [Run.open(folder) for folder in folders]
    if options.backend == "openvino":
        return export_for_openvino(runs, model_dir, options=options)
    models, info = load_runs(runs, precision=options.precision_of_layers)
    info = dataclasses.replace(
        info,
        overlap=options.overlap or info.overlap,
        networks_sha256=tuple(run.network_digest() for run in runs),
        flips=options.flips,
        precision=_precision(models),
    )
    segmenter = make_segmenter(models, info, flips=options.flips)
    return export_segmenter(segmenter, model_dir, options=options, runs=runs)


def export_segmenter(
    segmenter: Segmenter,
    model_dir: str | os.PathLike[str],
    *,
    options: ExportOptions = _AS_TRAINED,
    runs: Sequence[Run] = (),
) -> Path:
    """Publishes a segmenter as the next version; see `export_run`.

    Args:
        segmenter: The segmenter, already of the precision, overlap and flips of the options.
        model_dir: See `export_run`.
        options: Settings of the export.
        runs: The runs that the networks come from, for the model card.
    """
    if segmenter.backend != "tensorflow":
        raise ModelError(f"an export runs in TensorFlow, got a segmenter of {segmenter.backend}")
    require_extra("tensorflow_serving")  # for warm-up requests, written after minutes of work
    base = make_folder(model_dir, argument="model_dir")
    check_runtime(base, "tensorflow")
    limit = MemoryLimit.of(segmenter, options.max_memory_gib)
    segmenter = limit_memory(segmenter, limit, flips=options.flips)
    model = ServedModel(segmenter, options.accept)
    settings = _settings(model, limit, options)
    card = ModelCard.of(runs, segmenter.info, settings=settings, intended_use=options.intended_use)
    with tempfile.TemporaryDirectory(prefix=".tmp-", dir=base) as folder:
        saved = Path(folder) / "model"
        model.write(saved)
        write_assets(saved, model, card)
        check_saved_model(model, saved)
        logger.info(f"volumes have at most {limit.max_voxels} voxels; memory of a request: {limit}")
        return publish(saved, base, keep=options.keep)


def _settings(model: ServedModel, limit: MemoryLimit, options: ExportOptions) -> dict[str, Any]:
    """The settings that the model card lists."""
    info: ModelInfo = model.segmenter.info
    return {
        "networks averaged": len(model.segmenter.models),
        "precision": _precision(model.segmenter.models),
        "overlap": list(info.overlap),
        "flips averaged": " ".join(options.flips) or "none",
        "memory of a request": str(limit),
        "accepted": ", ".join(options.accept) or "none",
    }


def _precision(models: Sequence[keras.Model]) -> str:
    """The precision policies of the layers of networks."""
    return ", ".join(sorted(set().union(*map(policies_of, models))))
