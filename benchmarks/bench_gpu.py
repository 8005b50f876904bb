"""Benchmarks training, prediction and export on a GPU, against PyTorch in the same run.

    python benchmarks/bench_gpu.py                                   # make gpu-check
    python benchmarks/bench_gpu.py --peer_python path/to/venv/bin/python --output gpu.jsonl
    python benchmarks/bench_gpu.py --smoke                           # tiny sizes, also on a CPU

Prints one JSON line per result, each with the name of its check:

* `device`: the GPU, versions, and what the environment sets;
* `step`: training steps of presets, in each precision, with and without XLA, and with augmentation
  in the step: speed, peak memory, finite losses; `augmentation_ratio` compares the last;
* `peer`, `ratio`: the same network, patches and loss in PyTorch, and fcnseg's time relative to it;
* `data`, `joint`: patches per second of the input pipeline alone, and of training on it;
  `data_ratio` is relative to what the fastest step of `roth2018` takes;
* `window`: a whole volume, against MONAI's `sliding_window_inference`;
* `resume`: a run that is killed and resumed against one that is not;
* `export`, `session`, `masks`: an exported model, also while memory of the GPU is taken, and its
  masks on the GPU and on the CPU; skipped without tensorflow-serving-api, which an export needs.

Each job has a process of its own, so one that dies takes nothing with it; a failure is a line with
`error`. What is still to do when the time is up is named.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from gpu_sizes import SIZES
from processes import has_module

ROOT = Path(__file__).parent.parent
MODULES = {"fcnseg": "gpu_fcnseg", "pytorch": "gpu_pytorch"}
PRECISIONS = ("mixed_bfloat16", "float32", "mixed_float16")
NO_GPU = {"CUDA_VISIBLE_DEVICES": "-1"}
ALL_MEMORY = {"TF_FORCE_GPU_ALLOW_GROWTH": "false"}
LEAST_SECONDS = 10.0  # a process needs them to import TensorFlow

Line = dict[str, Any]


class Bench:
    """Starts the jobs, prints their lines, and limits their time.

    Attributes:
        size: Name of the sizes.
        peer_python: Python that has PyTorch; empty if there is none.
        folder: Folder of records, runs and logs.
        has_gpu: True if TensorFlow sees a GPU.
        lines: All lines so far.
    """

    def __init__(self, size: str, *, peer_python: str, seconds: float, output: Path | None) -> None:
        self.size = size
        self.peer_python = peer_python
        self.folder = Path(tempfile.mkdtemp(prefix="bench_gpu_"))
        self.has_gpu = False
        self.lines: list[Line] = []
        self._end = time.monotonic() + seconds
        self._output = output

    @property
    def left(self) -> float:
        """Seconds until the time is up."""
        return self._end - time.monotonic()

    @property
    def data(self) -> str:
        """Folder of the records."""
        return str(self.folder / "records")

    @property
    def is_smoke(self) -> bool:
        """True if the benchmark itself is tried, with as few cases as possible."""
        return self.size == "smoke"

    @property
    def precisions(self) -> list[str]:
        """The precisions of training; a CPU does not pool float16."""
        return [each for each in PRECISIONS if self.has_gpu or each != "mixed_float16"]

    def emit(self, line: Line) -> None:
        """Prints a line, and writes it to the output at once."""
        self.lines.append(line)
        print(json.dumps(line), flush=True)
        if self._output is not None:
            with self._output.open("a") as file:
                print(json.dumps(line), file=file)

    def start(
        self,
        job: str,
        arguments: Line,
        *,
        contender: str = "fcnseg",
        environment: dict[str, str] | None = None,
    ) -> subprocess.Popen[str]:
        """Starts a job in a process of its own, whose log is in the folder."""
        python = self.peer_python if contender == "pytorch" else sys.executable
        path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
        words = ["-W", "ignore", __file__, "--job", MODULES[contender], job, json.dumps(arguments)]
        with self._log(job).open("a") as log:
            return subprocess.Popen(
                [python, *words],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env={**os.environ, "PYTHONPATH": path, **(environment or {})},
            )

    def finish(self, process: subprocess.Popen[str], seconds: float = math.inf) -> Iterator[Line]:
        """Yields the lines of a job until it ends; kills it when its time or that of all is up."""
        timer = threading.Timer(max(1.0, min(seconds, self.left)), process.kill)
        timer.start()
        try:
            assert process.stdout is not None
            for text in process.stdout:
                if text.startswith("{"):
                    yield json.loads(text)
            process.wait()
        finally:
            timer.cancel()
            process.kill()

    def run(
        self, job: str, arguments: Line, *, seconds: float = math.inf, **options: Any
    ) -> list[Line]:
        """Runs a job to its end, prints its lines and returns them.

        Args:
            job: Name of its function.
            arguments: Its arguments.
            seconds: Its time, at most all that is left.
            **options: See `start`.
        """
        if min(seconds, self.left) < LEAST_SECONDS:
            self.emit({"check": job, "error": "left out, the time is up"})
            return []
        process = self.start(job, arguments, **options)
        lines = []
        for line in self.finish(process, seconds):
            lines.append(line)
            if line["check"] != "begins":
                self.emit(line)
        if process.returncode:
            self.emit({"check": job, "error": self.failure(job, process.returncode)})
        return lines

    def failure(self, job: str, status: int) -> str:
        """Describes the end of a failed job by its last words."""
        words = " ".join(self._log(job).read_text(errors="replace").split())
        end = (
            "was killed, as its time was up"
            if status == -signal.SIGKILL
            else f"ended with {status}"
        )
        return f"{end}: {words[-800:]}"

    def _log(self, job: str) -> Path:
        return self.folder / f"{job}.log"


def check_device(bench: Bench) -> None:
    """Describes the machine, and writes the records."""
    lines = bench.run("device", {"size": bench.size, "data": bench.data})
    bench.has_gpu = any(line.get("gpus") for line in lines)


def check_step(bench: Bench) -> None:
    """Measures the steps; a case of which a process died is not tried again."""
    cases: list[tuple[str, str, bool, str]] = [
        (name, precision, jit_compile, run_on)
        for precision in bench.precisions
        for jit_compile in (False, True)
        for run_on in ("host", "device")
        for name in ("roth2018", "fcn_m", "demo")  # one of each, before the time is up
        if name != "demo" or run_on == "host"  # it has no augmentation
    ]
    if bench.is_smoke:  # each value once
        cases = [
            ("roth2018", "mixed_bfloat16", False, "host"),
            ("fcn_m", "float32", False, "host"),
            ("fcn_m", "float32", False, "device"),
            ("demo", "float32", False, "host"),
        ]
    end = time.monotonic() + 0.4 * bench.left
    while cases and (seconds := end - time.monotonic()) > LEAST_SECONDS:
        arguments = {"size": bench.size, "data": bench.data, "cases": cases}
        lines = bench.run("steps", arguments, seconds=seconds)
        cases = cases[max(1, sum(line["check"] == "begins" for line in lines)) :]
    if cases:
        bench.emit({"check": "step", "error": f"left out, the time is up: {cases}"})
    _compare_augmentation(bench)


def _compare_augmentation(bench: Bench) -> None:
    """Compares steps with augmentation in them to those on a batch that is augmented already."""
    facts = ("preset", "precision", "jit_compile")
    measured = [line for line in bench.lines if line["check"] == "step" and "step_ms" in line]
    host = {
        tuple(line[name] for name in facts): line["step_ms"]
        for line in measured
        if line["augmentation_on"] == "host"
    }
    for line in measured:
        key = tuple(line[name] for name in facts)
        if line["augmentation_on"] == "device" and key in host:
            ratio = round(line["step_ms"] / host[key], 3)
            named = dict(zip(facts, key, strict=True))
            bench.emit({"check": "augmentation_ratio", **named, "ratio": ratio, "at_most": 1.1})


def check_peer(bench: Bench) -> None:
    """Measures PyTorch's steps, and fcnseg's time relative to them."""
    if not bench.peer_python:
        return
    compiles = [False] if bench.is_smoke else [False, True]
    arguments = {"size": bench.size, "precisions": bench.precisions, "compiles": compiles}
    bench.run("steps", arguments, seconds=0.4 * bench.left, contender="pytorch")
    for precision in bench.precisions:
        ours = _times(bench.lines, "step", precision, "jit_compile")
        theirs = _times(bench.lines, "peer", precision, "compiled")
        if ours and theirs:
            ratio = min(ours.values()) / min(theirs.values())
            times = {"fcnseg_ms": ours, "pytorch_ms": theirs}
            bench.emit(
                {"check": "ratio", "precision": precision, **times, "ratio": round(ratio, 3)}
            )


def _times(lines: Sequence[Line], check: str, precision: str, key: str) -> dict[str, float]:
    """Milliseconds of a step of roth2018, without augmentation, by whether it is compiled."""
    return {
        f"{key}={line[key]}": line["step_ms"]
        for line in lines
        if line["check"] == check
        and line["precision"] == precision
        and line.get("preset", "roth2018") == "roth2018"
        and line.get("augmentation_on", "host") == "host"
        and "step_ms" in line
    }


def check_data(bench: Bench) -> None:
    """Measures the input pipeline, alone and in training."""
    bench.run("data_rates", {"size": bench.size, "data": bench.data}, seconds=0.3 * bench.left)
    _compare_data(bench)
    augmentation_on = ["device"] if bench.is_smoke else ["host", "device"]
    arguments = {"size": bench.size, "data": bench.data, "augmentation_on": augmentation_on}
    bench.run("joint", arguments, seconds=0.3 * bench.left)


def _compare_data(bench: Bench) -> None:
    """Compares the patches per second of the input pipeline to what the fastest step takes."""
    steps = [
        line["patches_s"]
        for line in bench.lines
        if line["check"] == "step" and line["preset"] == "roth2018" and "patches_s" in line
    ]
    for line in bench.lines if steps else ():
        if line["check"] == "data" and line["augmentation_on"] == "host":
            ratio = round(line["patches_s"] / max(steps), 3)
            augmentation = line["augmentation"]
            facts = {"augmentation": augmentation, "ratio": ratio, "at_least": 1.5}
            bench.emit({"check": "data_ratio", **facts})


def check_window(bench: Bench) -> None:
    """Measures the segmentation of a volume."""
    ours = bench.run("window", {"size": bench.size}, seconds=0.3 * bench.left)
    if not bench.peer_python or not has_module(bench.peer_python, "monai"):
        return
    theirs = bench.run(
        "window", {"size": bench.size}, seconds=0.3 * bench.left, contender="pytorch"
    )
    for mine, other in zip(ours, theirs, strict=False):
        if "seconds" in mine and "seconds" in other:
            facts = {key: mine[key] for key in ("precision", "batch")}
            ratio = round(mine["seconds"] / other["seconds"], 3)
            bench.emit({"check": "window_ratio", **facts, "ratio": ratio})


def check_resume(bench: Bench) -> None:
    """Kills a run in its second epoch and resumes it."""
    kill_at = SIZES[bench.size].steps_per_epoch * 3 // 2
    cases = [("float32", True), ("float32", False), ("mixed_float16", True)]
    for precision, deterministic in cases[:1] if bench.is_smoke else cases:
        facts = {"precision": precision, "deterministic": deterministic}
        names = [f"{name}_{precision}_{deterministic}" for name in ("complete", "killed")]
        complete, killed = (str(bench.folder / name) for name in names)
        arguments = {"size": bench.size, "data": bench.data, **facts}
        bench.run("run", {**arguments, "run_dir": complete}, seconds=0.5 * bench.left)
        process = bench.start("run", {**arguments, "run_dir": killed, "kill_at": kill_at})
        list(bench.finish(process))
        if process.returncode != -signal.SIGKILL:
            bench.emit({"check": "resume", "error": bench.failure("run", process.returncode)})
            continue
        bench.run("run", {**arguments, "run_dir": killed, "resume": True}, seconds=0.5 * bench.left)
        bench.run("compare", {"run_dirs": [complete, killed], **facts})


def check_export(bench: Bench) -> None:
    """Exports a run, with and without free memory on the GPU, and compares masks."""
    if not has_module(sys.executable, "tensorflow_serving"):
        bench.emit({"check": "export", "skipped": "tensorflow-serving-api is not installed"})
        return
    run_dir = bench.folder / "complete_float32_True"
    if not run_dir.exists():
        bench.run("run", {"size": bench.size, "data": bench.data, "run_dir": str(run_dir)})
    models = bench.folder / "models"
    for fills_gpu in (False, True) if bench.has_gpu else (False,):
        environment = ALL_MEMORY if fills_gpu else {"TF_FORCE_GPU_ALLOW_GROWTH": "true"}
        arguments = {"run_dir": str(run_dir), "model_dir": str(models), "fills_gpu": fills_gpu}
        bench.run("export", arguments, environment=environment)
    masks = []
    for name, environment in (("default", {}), ("cpu", NO_GPU)):
        answer = bench.folder / f"{name}.npy"
        arguments = {"size": bench.size, "version": str(models / "1"), "answer": str(answer)}
        bench.run("session", arguments, environment=environment)
        masks += [np.load(answer)] if answer.exists() else []
    if len(masks) == 2:
        bench.emit({"check": "masks", "equal_voxels": float(np.mean(masks[0] == masks[1]))})


CHECKS: dict[str, Callable[[Bench], None]] = {
    "step": check_step,
    "peer": check_peer,
    "data": check_data,
    "window": check_window,
    "resume": check_resume,
    "export": check_export,
}


def do_job(module: str, job: str, arguments: str) -> None:
    """Does a job, in the process that is for it."""
    import importlib

    importlib.import_module(module).JOBS[job](**json.loads(arguments))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer_python", default=sys.executable, help="Python that has PyTorch")
    parser.add_argument("--only", nargs="+", choices=CHECKS, default=list(CHECKS))
    parser.add_argument("--seconds", type=float, default=3600, help="time for everything")
    parser.add_argument("--output", type=Path, help="file to which the lines are added")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes, without a GPU too")
    parser.add_argument("--job", nargs=3, help=argparse.SUPPRESS)
    settings = parser.parse_args()
    if settings.job:
        do_job(*settings.job)
        return
    peer = settings.peer_python if has_module(settings.peer_python, "torch") else ""
    if not peer:
        print(f"pytorch is left out: {settings.peer_python} does not have torch", file=sys.stderr)
    bench = Bench(
        "smoke" if settings.smoke else "full",
        peer_python=peer,
        seconds=settings.seconds,
        output=settings.output,
    )
    try:
        check_device(bench)
        if not bench.has_gpu and not settings.smoke:
            parser.error("TensorFlow sees no GPU here; --smoke tries the benchmark without one")
        for name in settings.only:
            CHECKS[name](bench)
    finally:
        shutil.rmtree(bench.folder)
    sys.exit(any("error" in line for line in bench.lines))


if __name__ == "__main__":
    main()
