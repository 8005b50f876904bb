"""Measurements of PyTorch for `bench_gpu.py`, with the network of `bench_step.py`."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import bench_step
import numpy as np
import torch
from gpu_sizes import SIZES, Sizes, emit, one_line

_DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
_TYPES = {"mixed_bfloat16": torch.bfloat16, "mixed_float16": torch.float16}


def steps(size: str, precisions: Sequence[str], compiles: Sequence[bool]) -> None:
    """Measures training steps on one batch in memory, eager and compiled."""
    sizes = SIZES[size]
    bench_step.FILTERS = sizes.filters
    torch.backends.cudnn.benchmark = True
    torch.set_float32_matmul_precision("high")  # TF32, as in TensorFlow
    torch.backends.cudnn.allow_tf32 = True
    for precision in precisions:
        for compiled in compiles:
            facts: dict[str, Any] = {"precision": precision, "compiled": compiled}
            try:
                facts |= _time_steps(sizes, precision, compiled=compiled)
            except Exception as error:
                facts["error"] = one_line(error)
            emit("peer", **facts, patch=sizes.patch)


def _time_steps(sizes: Sizes, precision: str, *, compiled: bool) -> dict[str, Any]:
    torch.manual_seed(0)
    network = bench_step.pytorch_network().to(_DEVICE, memory_format=torch.channels_last_3d)
    step = _Step.of(network, sizes, precision, compiled=compiled)
    _peak_mib()
    durations, losses = [], []
    for _ in range(sizes.warmup_steps + sizes.steps):
        started = time.perf_counter()
        losses.append(step.train())
        durations.append(time.perf_counter() - started)
    seconds = statistics.median(durations[sizes.warmup_steps :])
    return {
        "batch": 2,
        "step_ms": 1000 * seconds,
        "patches_s": 2 / seconds,
        "first_step_s": durations[0],
        "peak_mib": _peak_mib(),
        "losses": [losses[0], losses[-1]],
        "finite": bool(np.isfinite(losses).all()),
        "parameters": sum(weight.numel() for weight in network.parameters()),
    }


def _peak_mib() -> float | None:
    if _DEVICE.type != "cuda":
        return None
    peak: float = torch.cuda.max_memory_allocated() / 2**20
    torch.cuda.reset_peak_memory_stats()
    return peak


@dataclasses.dataclass(frozen=True)
class _Step:
    """A training step of soft Dice by Adam, channels last, in autocast.

    Attributes:
        network: The network, which has the weights.
        run: The network, perhaps compiled.
        optimizer: Adam.
        scaler: Scaling of the loss in float16.
        mixed: Makes the context of autocast.
        hu: (batch, 1, z, y, x).
        reference: One-hot (batch, classes, z, y, x).
    """

    network: Any
    run: Callable[[Any], Any]
    optimizer: Any
    scaler: Any
    mixed: Callable[[], Any]
    hu: Any
    reference: Any

    @classmethod
    def of(cls, network: Any, sizes: Sizes, precision: str, *, compiled: bool) -> _Step:
        """Makes the step with a batch of noise, on the GPU if there is one."""
        rng = np.random.default_rng(0)
        hu = torch.from_numpy(rng.normal(0, 200, (2, *sizes.patch, 1)).astype(np.float32))
        label = torch.from_numpy(rng.integers(0, bench_step.CLASSES, (2, *sizes.patch)))
        reference = torch.nn.functional.one_hot(label, bench_step.CLASSES).movedim(-1, 1).float()
        is_scaled = precision == "mixed_float16" and _DEVICE.type == "cuda"
        return cls(
            network=network.train(),
            run=torch.compile(network) if compiled else network,
            optimizer=torch.optim.Adam(network.parameters(), lr=1e-3),
            scaler=torch.amp.GradScaler(_DEVICE.type, enabled=is_scaled),
            mixed=_autocast(precision),
            hu=hu.to(_DEVICE).movedim(-1, 1),
            reference=reference.to(_DEVICE, memory_format=torch.channels_last_3d),
        )

    def train(self) -> float:
        """Trains on the batch; gives the loss."""
        self.optimizer.zero_grad(set_to_none=True)
        with self.mixed():
            logits = self.run(self.hu)
        probabilities = torch.softmax(logits.float(), dim=1)
        voxels = (0, 2, 3, 4)
        shared = (probabilities * self.reference).sum(voxels)
        dice = 2 * shared / (probabilities.sum(voxels) + self.reference.sum(voxels))
        loss = 1 - dice.mean()
        self.scaler.scale(loss).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return float(loss.detach())


def _autocast(precision: str) -> Callable[[], Any]:
    dtype = _TYPES.get(precision, torch.bfloat16)
    return lambda: torch.autocast(_DEVICE.type, dtype=dtype, enabled=precision in _TYPES)


def window(size: str) -> None:
    """Measures the segmentation of a whole volume by MONAI's `sliding_window_inference`."""
    from monai.inferers import sliding_window_inference

    sizes = SIZES[size]
    bench_step.FILTERS = sizes.filters
    hu = np.random.default_rng(0).normal(0, 200, sizes.volume).astype(np.int16)
    network = bench_step.pytorch_network().eval()
    network = network.to(_DEVICE, memory_format=torch.channels_last_3d)
    options = {"overlap": sizes.overlap / sizes.window, "mode": "gaussian", "sigma_scale": 0.125}
    for precision in ("float32", "mixed_bfloat16"):
        mixed = _autocast(precision)

        def predict(patches: Any, mixed: Any = mixed) -> Any:
            with mixed():
                return network(patches.to(memory_format=torch.channels_last_3d)).float()

        for batch in sizes.batches:
            _peak_mib()
            seconds = []
            for _ in range(sizes.rounds + 1):
                started = time.perf_counter()
                with torch.inference_mode():
                    volume = torch.from_numpy(hu).to(_DEVICE).float()[None, None]
                    scores = sliding_window_inference(
                        volume, (sizes.window,) * 3, batch, predict, **options
                    )
                    scores[0].argmax(0).to(torch.uint8).cpu()
                seconds.append(time.perf_counter() - started)
            facts = {"precision": precision, "batch": batch, "peak_mib": _peak_mib()}
            rest = {"first_s": seconds[0], "seconds": statistics.median(seconds[1:])}
            emit("window", contender="monai", **facts, **rest, volume=sizes.volume)


JOBS: dict[str, Callable[..., None]] = {each.__name__: each for each in (steps, window)}
