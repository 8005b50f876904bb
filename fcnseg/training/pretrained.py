"""Initial weights from another run: fine-tuning."""

from __future__ import annotations

import dataclasses
import logging
import os
from typing import Any

import keras

from fcnseg.config import ModelConfig
from fcnseg.errors import InputError, format_names
from fcnseg.inference.prediction import load_run
from fcnseg.networks.levels import levels_of
from fcnseg.runs.run import Run

logger = logging.getLogger(__name__)

_LEVELS = ("filters", "kernels", "strides", "residual_blocks")
# Settings that may differ: they change training, not the meaning of the weights.
_FREE = ("dropout", "l2", "deep_supervision")


def load_pretrained(
    model: keras.Model, run_dir: str | os.PathLike[str], config: ModelConfig
) -> None:
    """Initialises a network with the best weights of another run, layer by layer.

    A layer with other weight shapes there, such as the last with another number of classes, or
    missing there, such as those for coarser levels, keeps its random initial weights; the log names
    it.

    Args:
        model: Model from `build_fcn`; its strategy may have several replicas.
        run_dir: Folder of the other run, which is finished.
        config: Configuration of the model.

    Raises:
        InputError: If there is no finished run, or its network differs; the message names the
            difference.
    """
    run = Run.open(run_dir)
    _check_architecture(run.manifest.config.model, config, run_dir)
    network, _ = load_run(run)
    given = {layer.name: layer for layer in network.layers}
    weighty = [layer for layer in model.layers if layer.weights]
    fitting = [layer for layer in weighty if _shapes(layer) == _shapes(given.get(layer.name))]
    for layer in fitting:
        layer.set_weights(given[layer.name].get_weights())
    new = [layer.name for layer in weighty if layer not in fitting]
    logger.info(
        f"starts from the weights of {run_dir} in {len(fitting)} layers;"
        f" new are {', '.join(new) or 'none'}"
    )


def _check_architecture(
    then: ModelConfig, now: ModelConfig, run_dir: str | os.PathLike[str]
) -> None:
    one, other = _architecture(then), _architecture(now)
    findings = [
        f"model.{name} was {one[name]}, got {other[name]}"
        for name in one
        if one[name] != other[name]
    ]
    if findings:
        raise InputError(
            f"init_from needs the network of the run in {run_dir}: {format_names(findings)}"
        )


def _architecture(config: ModelConfig) -> dict[str, Any]:
    """The settings that determine the meaning of the weights, defaults filled in."""
    levels = levels_of(config)
    of_levels = {
        "filters": tuple(level.filters for level in levels),
        "kernels": tuple(level.kernel for level in levels),
        "strides": tuple(level.stride for level in levels[1:]),
        "residual_blocks": tuple(level.residual_blocks for level in levels),
    }
    settings = dataclasses.asdict(config) | of_levels
    if config.norm == "sync_batch":  # the same layer
        settings["norm"] = "batch"
    return {name: value for name, value in settings.items() if name not in _FREE}


def _shapes(layer: keras.layers.Layer | None) -> list[tuple[int, ...]]:
    return [] if layer is None else [tuple(weight.shape) for weight in layer.weights]
