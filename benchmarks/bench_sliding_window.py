"""Benchmarks segmenting a complete volume, against MONAI's `sliding_window_inference`.

One network (that of `bench_step.py`, 8 classes) over noise of 256 x 208 x 208 voxels, a trunk at 2
mm: windows of 64^3, a quarter of each shared with the next, two at a time, Gaussian weights, and
class ids as the result. The sizes make both use the same 80 windows. MONAI sums logits, the cheaper
way for it; fcnseg sums probabilities. PyTorch runs in its best memory format on a CPU, channels
last. Each has a process of its own and they alternate. Memory is the peak of a process, above its
memory after loading the network and a small patch. Needs Linux, for /proc. Prints one JSON line of
medians in seconds, MiB, and fcnseg's relative to MONAI's.

    python benchmarks/bench_sliding_window.py --monai_python path/to/venv/bin/python
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from bench_step import CLASSES, FILTERS, Step, contender, pytorch_network
from processes import has_module, memory_mib

WINDOW, OVERLAP, BATCH = 64, 16, 2
SHAPE = (256, 208, 208)  # (z, y, x), each 64 + n * 48
MODULES = {"fcnseg": "tensorflow", "monai": "monai"}


def make_hu(shape: tuple[int, ...]) -> Any:
    return np.random.default_rng(0).normal(0, 200, shape).astype(np.int16)


def fcnseg() -> dict[str, Any]:
    """Makes the function that segments, and the number of parameters."""
    from fcnseg.config import ModelConfig
    from fcnseg.inference import make_segmenter
    from fcnseg.networks.build import build_fcn
    from fcnseg.runs.model_info import ModelInfo

    config = ModelConfig(filters=FILTERS)
    model = build_fcn(config, num_classes=CLASSES)
    info = ModelInfo(
        class_names=tuple(map(str, range(CLASSES))),
        spacing_mm=(2.0, 2.0, 2.0),
        hu_window=config.hu_window,
        window=(WINDOW,) * 3,
        overlap=(OVERLAP,) * 3,
        batch_size=BATCH,
        max_voxels=int(np.prod(SHAPE)),
    )
    segmenter = make_segmenter(model, info)
    segmenter.predict_patches(make_hu((1, 16, 16, 16, 1)).astype(np.float32))
    return {
        "segment": lambda hu: segmenter.segment_model_grid(hu).numpy(),
        "parameters": sum(int(np.prod(weight.shape)) for weight in model.trainable_weights),
    }


def monai() -> dict[str, Any]:
    """Makes the function that segments, and the number of parameters."""
    import torch
    from monai.inferers import sliding_window_inference

    network = pytorch_network().eval().to(memory_format=torch.channels_last_3d)

    def predict(patches: Any) -> Any:
        return network(patches.to(memory_format=torch.channels_last_3d))

    def segment(hu: Any) -> Any:
        volume = torch.from_numpy(hu).float()[None, None]
        options = {"overlap": OVERLAP / WINDOW, "mode": "gaussian", "sigma_scale": 0.125}
        with torch.inference_mode():
            scores = sliding_window_inference(volume, (WINDOW,) * 3, BATCH, predict, **options)
            return scores[0].argmax(0).to(torch.uint8).numpy()

    with torch.inference_mode():
        predict(torch.from_numpy(make_hu((1, 1, 16, 16, 16))).float())
    parameters = sum(weight.numel() for weight in network.parameters())
    return {"segment": segment, "parameters": parameters}


CONTENDERS = {each.__name__: each for each in (fcnseg, monai)}


def serve(name: str) -> None:
    """Answers each word on stdin with a number."""
    hu = make_hu(SHAPE)
    work = CONTENDERS[name]()
    Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from here
    before = memory_mib("VmRSS")

    def segment(volume: Any) -> float:
        started = time.perf_counter()
        ids = work["segment"](volume)
        seconds = time.perf_counter() - started
        assert (ids.shape, ids.dtype) == (volume.shape, np.uint8)
        return seconds

    answers: dict[str, Step] = {
        "warm": lambda: segment(hu[:WINDOW, :WINDOW]),
        "segment": lambda: segment(hu),
        "cpu": time.process_time,
        "peak": lambda: memory_mib("VmHWM") - before,
    }
    print(work["parameters"], flush=True)
    for line in sys.stdin:
        print(answers[line.strip()](), flush=True)


def measure(pythons: dict[str, str], rounds: int) -> dict[str, Any]:
    """Computes medians of both, and fcnseg's relative to MONAI's."""
    with (
        contender("fcnseg", pythons["fcnseg"], [], script=__file__) as ours,
        contender("monai", pythons["monai"], [], script=__file__) as theirs,
    ):
        asks = {"fcnseg": ours, "monai": theirs}
        parameters = {name: int(ask("")) for name, ask in asks.items()}
        assert len(set(parameters.values())) == 1, f"two networks: {parameters}"
        for ask in asks.values():
            ask("warm")  # the first traces
        cpu = {name: -ask("cpu") for name, ask in asks.items()}
        times = [{name: ask("segment") for name, ask in asks.items()} for _ in range(rounds)]
        cpu = {name: (cpu[name] + ask("cpu")) / rounds for name, ask in asks.items()}
        peaks = {name: ask("peak") for name, ask in asks.items()}
    parts = [each["fcnseg"] / each["monai"] for each in times]
    return {
        **{f"{name}_s": round(statistics.median(t[name] for t in times), 2) for name in asks},
        "fcnseg_part_of_time": round(statistics.median(parts), 3),
        **{f"{name}_cpu_s": round(seconds, 2) for name, seconds in cpu.items()},
        "fcnseg_part_of_cpu": round(cpu["fcnseg"] / cpu["monai"], 3),
        **{f"{name}_peak_mib": round(peak) for name, peak in peaks.items()},
        "fcnseg_part_of_peak": round(peaks["fcnseg"] / peaks["monai"], 3),
        "parameters": parameters["fcnseg"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--monai_python", default=sys.executable, help="Python that has MONAI")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    settings = parser.parse_args()
    if settings.serve:
        serve(settings.serve)
        return
    pythons = {"fcnseg": sys.executable, "monai": settings.monai_python}
    for name, module in MODULES.items():
        if not has_module(pythons[name], module):
            parser.error(f"{name} needs {module}, which {pythons[name]} does not have")
    result = {"shape": SHAPE, "window": WINDOW, "batch": BATCH, "cores": os.cpu_count()}
    print(json.dumps(result | measure(pythons, settings.rounds)))


if __name__ == "__main__":
    main()
