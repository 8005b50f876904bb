"""Measures prediction on the CPU of this machine, for `fcnseg plan --device cpu`."""

from __future__ import annotations

import logging

from fcnseg.cli.quiet import load_tensorflow
from fcnseg.config import Config, ModelConfig
from fcnseg.inference.backend import Backend
from fcnseg.records import DatasetInfo
from fcnseg.volumes import Shape, Triple, Zyx

logger = logging.getLogger(__name__)


class CpuStopwatch:
    """Measures configurations; see `fcnseg.planning.Stopwatch`."""

    def __init__(self, data: DatasetInfo, *, backend: Backend) -> None:
        """Makes a stopwatch.

        Args:
            data: Manifest of the dataset that the configurations are for.
            backend: Runtime that computes windows.

        Raises:
            MissingExtraError: If TensorFlow is not installed.
        """
        load_tensorflow()
        self.data = data
        self.backend = backend
        self._of_windows: dict[tuple[ModelConfig, Shape], float] = {}
        self._of_others: dict[tuple[Shape, Shape], float] = {}

    def window_seconds(self, config: Config) -> float:
        """Measures the time of a window; equal networks are measured once.

        Raises:
            MissingExtraError: If the backend is not installed.
        """
        key = (config.model, config.patches.size)
        if key not in self._of_windows:
            self._of_windows[key] = self._window_seconds(config)
            logger.info(
                f"{config.model.filters[0]} channels at the top: a window of"
                f" {Zyx(config.patches.size):d} voxels takes {self._of_windows[key]:.3g} s"
            )
        return self._of_windows[key]

    def other_seconds(self, config: Config, *, shape: Shape, spacing_mm: Triple) -> float:
        """Measures the time of all else for a scan; equal windows are measured once.

        Args:
            config: A configuration.
            shape: Voxels (z, y, x) of the scan.
            spacing_mm: Its spacing (z, y, x).
        """
        # --help and mistakes in flags need not wait for these.
        from fcnseg.inference.timing import other_seconds
        from fcnseg.training.assembly import make_model_info

        key = (config.patches.size, config.inference.overlap)
        if key not in self._of_others:
            model_info = make_model_info(config, self.data)
            seconds = other_seconds(model_info, shape=shape, spacing_mm=spacing_mm)
            self._of_others[key] = seconds
            logger.info(
                f"all else for {Zyx(shape):d} voxels of {Zyx(spacing_mm):.3g} mm takes"
                f" {seconds:.3g} s"
            )
        return self._of_others[key]

    def _window_seconds(self, config: Config) -> float:
        from fcnseg.inference.timing import window_seconds
        from fcnseg.networks.build import build_fcn
        from fcnseg.networks.precision import for_inference
        from fcnseg.training.assembly import make_model_info

        model = build_fcn(
            config.model, num_classes=self.data.num_classes, precision=config.training.precision
        )
        model_info = make_model_info(config, self.data)
        return window_seconds(for_inference(model, None), model_info, backend=self.backend)
