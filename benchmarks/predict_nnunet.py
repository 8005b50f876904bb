"""nnU-Net as a contender of `bench_predict.py`: its own predictor, from file to file.

Its preprocessing, sliding window and export with their defaults, without mirroring, and its
network with the channels, blocks and windows of a run of fcnseg, in its own plan's form. Runs in
the Python that has nnU-Net.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import torch
from bench_step import compiled_by_openvino
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from processes import memory_mib

_CONFIGURATION = "3d_fullres"


@dataclasses.dataclass(frozen=True)
class Twin:
    """The settings of a run of fcnseg that nnU-Net's network and windows take.

    Attributes:
        filters: Channels of each level.
        residual_blocks: Residual blocks of each level of the encoder; none for plain convolutions.
        window: Voxels (z, y, x).
        overlap: Voxels (z, y, x) by which windows overlap.
        spacing_mm: Spacing (z, y, x).
        classes: Background included.
    """

    filters: tuple[int, ...]
    residual_blocks: tuple[int, ...]
    window: tuple[int, ...]
    overlap: tuple[int, ...]
    spacing_mm: tuple[float, ...]
    classes: int

    @classmethod
    def of(cls, run_dir: Path) -> Twin:
        """Reads the files of a run."""
        model = json.loads((run_dir / "run.json").read_text())["config"]["model"]
        info = json.loads((run_dir / "model_info.json").read_text())
        return cls(
            filters=tuple(model["filters"]),
            residual_blocks=tuple(model["residual_blocks"]),
            window=tuple(info["window"]),
            overlap=tuple(info["overlap"]),
            spacing_mm=tuple(info["spacing_mm"]),
            classes=len(info["class_names"]),
        )


def make_plans(twin: Twin) -> dict[str, Any]:
    """Makes a plan as nnU-Net's planner writes it, for CT.

    A level of the decoder has one convolution, as in nnU-Net's residual plans: so the multiply-adds
    are those of fcnseg's network.
    """
    levels = len(twin.filters)
    resampling = {"is_seg": False, "order": 3, "order_z": 0, "force_separate_z": None}
    of_masks = {**resampling, "is_seg": True, "order": 1}
    of_logits = {**resampling, "order": 1}
    blocks, kind = {"n_conv_per_stage": [2] * levels}, "PlainConvUNet"
    if twin.residual_blocks:
        blocks, kind = {"n_blocks_per_stage": list(twin.residual_blocks)}, "ResidualEncoderUNet"
    architecture = {
        "network_class_name": f"dynamic_network_architectures.architectures.unet.{kind}",
        "arch_kwargs": {
            "n_stages": levels,
            "features_per_stage": twin.filters,
            "conv_op": "torch.nn.modules.conv.Conv3d",
            "kernel_sizes": [[3, 3, 3]] * levels,
            "strides": [[1, 1, 1]] + [[2, 2, 2]] * (levels - 1),
            **blocks,
            "n_conv_per_stage_decoder": [1] * (levels - 1),
            "conv_bias": True,
            "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
            "norm_op_kwargs": {"eps": 1e-05, "affine": True},
            "dropout_op": None,
            "dropout_op_kwargs": None,
            "nonlin": "torch.nn.LeakyReLU",
            "nonlin_kwargs": {"inplace": True},
        },
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    }
    configuration = {
        "data_identifier": "nnUNetPlans_3d_fullres",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 2,
        "patch_size": list(twin.window),
        "median_image_size_in_voxels": [200, 164, 164],
        "spacing": list(twin.spacing_mm),
        "normalization_schemes": ["CTNormalization"],
        "use_mask_for_norm": [False],
        "resampling_fn_data": "resample_data_or_seg_to_shape",
        "resampling_fn_data_kwargs": resampling,
        "resampling_fn_seg": "resample_data_or_seg_to_shape",
        "resampling_fn_seg_kwargs": of_masks,
        "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
        "resampling_fn_probabilities_kwargs": of_logits,
        "architecture": architecture,
        "batch_dice": True,
    }
    intensities = {
        "mean": 50.0,
        "std": 120.0,
        "median": 60.0,
        "min": -1024.0,
        "max": 3000.0,
        "percentile_00_5": -200.0,
        "percentile_99_5": 300.0,
    }
    return {
        "dataset_name": "Dataset001_phantoms",
        "plans_name": "nnUNetPlans",
        "original_median_spacing_after_transp": [2.5, 0.8, 0.8],
        "original_median_shape_after_transp": [200, 512, 512],
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "configurations": {_CONFIGURATION: configuration},
        "experiment_planner_used": "ExperimentPlanner",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {"0": intensities},
    }


class OpenvinoNetwork(torch.nn.Module):
    """A network whose forward pass is OpenVINO's, in bfloat16."""

    def __init__(self, network: torch.nn.Module, window: tuple[int, ...]) -> None:
        super().__init__()
        self.compiled = compiled_by_openvino(network, torch.zeros((1, 1, *window)), "bfloat16")

    def forward(self, windows: Any) -> Any:
        """Maps (batch, 1, z, y, x) to logits."""
        return torch.from_numpy(self.compiled(windows.numpy())[0])

    def load_state_dict(self, *_: Any, **__: Any) -> None:
        """Ignores the weights that the predictor gives: it has them already."""


def multiply_adds(network: torch.nn.Module, window: tuple[int, ...]) -> float:
    """Counts those of the convolutions for a window."""
    counts = []

    def count(layer: Any, inputs: Any, output: Any) -> None:
        is_wide = isinstance(layer, torch.nn.Conv3d)
        voxels = (output if is_wide else inputs[0])[0, 0].numel()
        counts.append(voxels * layer.weight.numel())

    for layer in network.modules():
        if isinstance(layer, (torch.nn.Conv3d, torch.nn.ConvTranspose3d)):
            layer.register_forward_hook(count)
    with torch.inference_mode():
        network(torch.zeros((1, 1, *window)))
    return float(sum(counts))


def make_network(twin: Twin) -> torch.nn.Module:
    """Makes the network, which is not trained."""
    configuration = PlansManager(make_plans(twin)).get_configuration(_CONFIGURATION)
    torch.manual_seed(0)
    network: torch.nn.Module = get_network_from_plans(
        configuration.network_arch_class_name,
        configuration.network_arch_init_kwargs,
        configuration.network_arch_init_kwargs_req_import,
        1,
        twin.classes,
        deep_supervision=False,
    )
    return network.eval()


def make_predictor(name: str, twin: Twin) -> nnUNetPredictor:
    """Makes the predictor."""
    plans = PlansManager(make_plans(twin))
    network = make_network(twin)
    weights = network.state_dict()
    by_openvino = name == "nnunet_openvino"
    predictor = nnUNetPredictor(
        tile_step_size=1 - twin.overlap[0] / twin.window[0] if by_openvino else 0.5,
        use_mirroring=False,
        perform_everything_on_device=False,
        device=torch.device("cpu"),
        allow_tqdm=False,
    )
    labels = {"background": 0} | {str(index): index for index in range(1, twin.classes)}
    description = {"channel_names": {"0": "CT"}, "labels": labels, "file_ending": ".nii.gz"}
    predictor.manual_initialization(
        OpenvinoNetwork(network, twin.window) if by_openvino else network,
        plans,
        plans.get_configuration(_CONFIGURATION),
        [weights],
        description,
        "nnUNetTrainer",
        None,
    )
    return predictor


def serve(name: str, run_dir: str, image: str, folder: str) -> None:
    """Answers each word on stdin with a number."""
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    twin = Twin.of(Path(run_dir))
    with contextlib.redirect_stdout(sys.stderr):  # only answers are for stdout
        predictor = make_predictor(name, twin)
    output = str(Path(folder) / "one")

    def predict() -> float:
        started = time.perf_counter()
        with contextlib.redirect_stdout(sys.stderr):
            predictor.predict_from_files_sequential([[image]], [output])
        return time.perf_counter() - started

    answers = {
        "one": predict,
        "peak": lambda: memory_mib("VmHWM"),
        "multiply_adds": lambda: multiply_adds(make_network(twin), twin.window),
    }
    for line in sys.stdin:
        print(answers[line.strip()](), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--serve", nargs=4, required=True, metavar=("NAME", "RUN", "IMAGE", "FOLDER")
    )
    serve(*parser.parse_args().serve)


if __name__ == "__main__":
    main()
