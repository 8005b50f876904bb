"""Benchmarks prediction from file to file on a CPU, against nnU-Net's own.

A phantom of 512 x 512 pixels is segmented, by default with the preset `fast` at 2.5 mm: four levels
of 16 to 128 channels, windows of 64 x 96 x 96. The contenders:

    fcnseg            the preset, trained for `--steps`: masks of few have more borders than
                      organs, and so a longer way back
    fcnseg_bfloat16   the same in bfloat16
    fcnseg_openvino   the same in bfloat16 by the backend `openvino`
    nnunet            nnU-Net's predictor without mirroring; its network of equal multiply-adds
    nnunet_openvino   the same, its windows computed by OpenVINO in bfloat16

nnU-Net's windows overlap by half, its default; those of `nnunet_openvino` as fcnseg's. Its network
is not trained, which its time does not depend on. Each contender has a process of its own, which
has loaded the network and predicted once, and they take turns in random order. Prints one JSON line
of medians in seconds, those of each phase of fcnseg and the part of all that is not the network,
the peak MiB of one scan, the time of two scans in flight relative to one, multiply-adds of a
window, and ratios.

    python benchmarks/bench_predict.py --peer_python path/to/venv/bin/python --output build/predict
    python benchmarks/bench_predict.py --output build/own --run_dir run --slices 600 --slice_mm 1

where that Python has nnU-Net and OpenVINO. `--run_dir` takes any run instead of training one. What
exists in the output folder is used again.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from bench_seeds import call
from bench_step import contender
from made_cases import make_case
from processes import memory_mib, pythons_of

PEERS = {"nnunet": ("nnunetv2",), "nnunet_openvino": ("nnunetv2", "openvino")}
OURS = {
    "fcnseg": ("tensorflow",),
    "fcnseg_bfloat16": ("tensorflow",),
    "fcnseg_openvino": ("tensorflow", "openvino"),
}
PEER_SCRIPT = str(Path(__file__).with_name("predict_nnunet.py"))
NETWORK = "windows"  # the phase of the network
PHASES = (
    *("reading", "turning", "finding the body", "resampling", NETWORK),
    *("argmax", "way back", "writing"),
)


def make_run(folder: Path, config: str, spacing_mm: float, steps: int) -> Path:
    """Trains a preset on phantoms for some steps, once per folder."""
    scans, records = folder / "scans", folder / f"records_{spacing_mm:g}"
    run_dir = folder / f"run_{config}_{spacing_mm:g}_{steps}"
    if not (records / "COMPLETED").exists():
        call("fcnseg", "phantom", "--cases", 4, "--output", scans, "--overwrite")
        call(
            *("fcnseg", "convert", "--cases", scans / "cases.csv", "--output", records, "--resume"),
            *("--label_map", scans / "label_map.yaml", "--spacing_mm", *[spacing_mm] * 3),
            *("--validation_fraction", 0.25, "--test_fraction", 0),
        )
    call(
        *("fcnseg", "train", "--config", config, "--data", records, "--run_dir", run_dir),
        *("--resume", "--training.epochs", 1, "--training.steps_per_epoch", steps),
    )
    return run_dir


def fcnseg(name: str, run_dir: str, image: str, folder: Path) -> dict[str, Callable[[], float]]:
    """Makes the answers of one of fcnseg's contenders."""
    from fcnseg.inference import load_run, make_segmenter
    from fcnseg.inference.case_prediction import CasePredictor
    from fcnseg.masks.case_outputs import CaseOutputs
    from fcnseg.networks.precision import for_inference

    model, info = load_run(run_dir)
    model = for_inference(model, "float32" if name == "fcnseg" else "bfloat16")
    backend: Any = "openvino" if name == "fcnseg_openvino" else "tensorflow"
    predictor = CasePredictor(make_segmenter(model, info, backend=backend))

    def predict(*case_ids: str) -> float:
        predictor.seconds.clear()
        cases = [CaseOutputs(case_id, image, str(folder)) for case_id in case_ids]
        started = time.perf_counter()
        for error in predictor.predict_each(cases):
            if error is not None:
                raise error
        return time.perf_counter() - started

    phases = {phase: lambda phase=phase: predictor.seconds[phase] for phase in PHASES}
    return {
        "one": lambda: predict("one"),
        "two": lambda: predict("one", "two"),
        "multiply_adds": lambda: multiply_adds(run_dir),
        **phases,
    }


def multiply_adds(run_dir: str) -> float:
    """Counts those of the network for a window."""
    from fcnseg.networks import model_summary
    from fcnseg.runs import Run

    run = Run.open(run_dir)
    model, info = run.manifest.config.model, run.info
    return model_summary(model, num_classes=info.num_classes, patch_size=info.window).macs


def serve(name: str, run_dir: str, image: str, folder: str) -> None:
    """Answers each word on stdin with a number."""
    answers = fcnseg(name, run_dir, image, Path(folder))
    answers["peak"] = lambda: memory_mib("VmHWM")
    for line in sys.stdin:
        print(answers[line.strip()](), flush=True)


Ask = Callable[[str], float]


def measure(pythons: dict[str, str], arguments: Any, run_dir: Path, image: str) -> dict[str, Any]:
    """Computes medians, and fcnseg's relative to nnU-Net's."""
    with ExitStack() as stack:
        asks = {}
        for name, python in pythons.items():
            masks = arguments.output / "masks" / name
            masks.mkdir(parents=True, exist_ok=True)
            script = PEER_SCRIPT if name in PEERS else __file__
            words = [str(run_dir), image, str(masks)]
            asks[name] = stack.enter_context(contender(name, python, words, script=script))
        for ask in asks.values():
            ask("one")  # the first traces and fills memory
        peaks = {name: round(ask("peak")) for name, ask in asks.items()}  # of one scan at a time
        order = random.Random(0)
        rounds = []
        for _ in range(arguments.rounds):
            turns = order.sample(list(asks), len(asks))
            found = {name: measure_once(asks[name], is_ours=name in OURS) for name in turns}
            rounds.append({name: found[name] for name in asks})
        work = {name: round(ask("multiply_adds") / 1e9, 2) for name, ask in asks.items()}
    return {**medians_of(rounds), "peak_mib": peaks, "multiply_adds_g": work}


def measure_once(ask: Ask, *, is_ours: bool) -> dict[str, float]:
    """Measures one scan, and of ours its phases, and then two scans in flight."""
    one = ask("one")
    if not is_ours:
        return {"one": one}
    phases = {phase: ask(phase) for phase in PHASES}
    other = (one - phases[NETWORK]) / one
    return {"one": one, **phases, "not_network": other, "two_part_of_one": ask("two") / one}


def medians_of(rounds: list[dict[str, dict[str, float]]]) -> dict[str, Any]:
    """Computes the medians over rounds, each of which is by contender."""

    def median(name: str, word: str) -> float:
        return round(statistics.median(each[name][word] for each in rounds), 3)

    ours = [name for name in rounds[0] if name in OURS]
    ratios = {
        f"{name}_part_of_{peer}": round(
            statistics.median(each[name]["one"] / each[peer]["one"] for each in rounds), 3
        )
        for name in ours
        for peer in rounds[0]
        if peer in PEERS
    }
    return {
        "seconds": {name: median(name, "one") for name in rounds[0]},
        "phases": {name: {phase: median(name, phase) for phase in PHASES} for name in ours},
        "not_network": {name: median(name, "not_network") for name in ours},
        "two_scans_part_of_one": {name: median(name, "two_part_of_one") for name in ours},
        **ratios,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, help="folder for everything")
    parser.add_argument("--peer_python", default=sys.executable, help="Python that has nnU-Net")
    parser.add_argument("--run_dir", type=Path, help="a run; by default one is trained")
    parser.add_argument("--config", default="fast", help="preset to train")
    parser.add_argument("--spacing_mm", type=float, default=2.5, help="to train at, cubic")
    parser.add_argument("--steps", type=int, default=100, help="of training")
    parser.add_argument("--slices", type=int, default=200, help="of the scan")
    parser.add_argument("--slice_mm", type=float, default=2.5, help="spacing of these")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--contenders", nargs="+", default=[*OURS, *PEERS])
    parser.add_argument("--serve", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve(*arguments.serve)
        return
    arguments.output.mkdir(parents=True, exist_ok=True)
    modules = {name: {**OURS, **PEERS}[name] for name in arguments.contenders}
    pythons = pythons_of(modules, peers=PEERS, peer_python=arguments.peer_python)
    run_dir = arguments.run_dir or make_run(
        arguments.output, arguments.config, arguments.spacing_mm, arguments.steps
    )
    shape, spacing_mm = (arguments.slices, 512, 512), (arguments.slice_mm, 0.8, 0.8)
    scan = f"ct_{arguments.slices}_{arguments.slice_mm:g}"
    image, _ = make_case(arguments.output, scan, shape, spacing_mm)
    result = {
        "run": run_dir.name,
        "shape": shape,
        "scan_spacing_mm": spacing_mm,
        "rounds": arguments.rounds,
    }
    print(json.dumps(result | measure(pythons, arguments, run_dir, image)))


if __name__ == "__main__":
    main()
