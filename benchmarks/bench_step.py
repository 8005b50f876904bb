"""Benchmarks a training step and inference, against the same network in PyTorch and OpenVINO.

The network: four levels of 32 to 256 channels, two 3x3x3 convolutions each with batch norm and
ReLU, summation skips, transposed convolutions, 8 classes; patches of 64^3, two a step; soft Dice,
Adam; in inference, probabilities.
The contenders:

    fcnseg            TensorFlow
    fcnseg_openvino   fcnseg's network by its backend `openvino`; inference alone
    fcnseg_int8       the same in int8, but for a few layers; inference alone
    pytorch           PyTorch in its best memory format on a CPU, channels last
    pytorch_openvino  PyTorch's network converted by OpenVINO; inference alone

Each has a process of its own and they alternate, one step at a time and in random order, so that a
busy machine affects all equally. Prints one JSON line of medians in seconds, and of fcnseg's time
relative to that of the faster peer.

    python benchmarks/bench_step.py --peer_python path/to/venv/bin/python

where that Python has PyTorch and OpenVINO (`pip install torch openvino`); without the flag they are
looked for in this one. A contender whose package is missing is named and left out.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
from processes import pythons_of

FILTERS: tuple[int, ...] = (32, 64, 128, 256)
CLASSES = 8
PRECISIONS = ("float32", "bfloat16")
Step = Callable[[], float]  # runs it once, and returns a number that depends on all of it


def make_batch(size: int, batch: int) -> tuple[Any, Any]:
    rng = np.random.default_rng(0)
    hu = rng.normal(0, 200, (batch, size, size, size, 1)).astype(np.float32)
    return hu, rng.integers(0, CLASSES, (batch, size, size, size)).astype(np.uint8)


def fcnseg(precision: str, size: int, batch: int) -> dict[str, Any]:
    """Makes the steps of fcnseg with its defaults, and the number of parameters."""
    from fcnseg.config import Config, ModelConfig, TrainingConfig  # first: it sets TensorFlow up

    import tensorflow as tf  # isort: skip

    from fcnseg.sampling import Batch
    from fcnseg.training.compiled_model import build_compiled, make_state
    from fcnseg.training.step import TrainingStep

    policy: Any = "float32" if precision == "float32" else f"mixed_{precision}"
    config = Config(model=ModelConfig(filters=FILTERS), training=TrainingConfig(precision=policy))
    model = build_compiled(config, class_names=[str(index) for index in range(CLASSES)])
    make_state(model, size=(size,) * 3, label_size=(size,) * 3)
    hu, label = map(tf.constant, make_batch(size, batch))
    train = tf.function(TrainingStep(model).on_replica)
    patches = Batch(hu, label, {})
    network = tf.function(lambda hu: model(hu, training=False))
    return {
        "train": lambda: float(train(patches)),
        "infer": lambda: float(network(hu)[0, 0, 0, 0, 0]),
        "parameters": sum(int(np.prod(weight.shape)) for weight in model.trainable_weights),
    }


def fcnseg_openvino(precision: str, size: int, batch: int) -> dict[str, Any]:
    """Makes the inference of fcnseg's network by its backend `openvino`."""
    from fcnseg.config import ModelConfig  # first: it sets TensorFlow up

    import tensorflow as tf  # isort: skip

    from fcnseg.inference.openvino_backend import predictor_by_openvino
    from fcnseg.networks.build import build_fcn

    policy = "float32" if precision == "float32" else f"mixed_{precision}"
    network = build_fcn(ModelConfig(filters=FILTERS), num_classes=CLASSES, precision=policy)
    predict = tf.function(predictor_by_openvino(network, (size,) * 3))
    hu = tf.constant(make_batch(size, batch)[0])
    return {
        "infer": lambda: float(predict(hu)[0, 0, 0, 0, 0]),
        "parameters": sum(int(np.prod(weight.shape)) for weight in network.trainable_weights),
    }


def fcnseg_int8(precision: str, size: int, batch: int) -> dict[str, Any]:
    """Makes the inference of fcnseg's network in int8, other layers in the precision."""
    from fcnseg.config import ModelConfig  # first: it sets TensorFlow up

    import tensorflow as tf  # isort: skip

    from fcnseg.inference.openvino_backend import openvino_graph, predictor_of
    from fcnseg.inference.quantization import quantized
    from fcnseg.networks.build import build_fcn

    network = build_fcn(ModelConfig(filters=FILTERS), num_classes=CLASSES)
    hu = make_batch(size, batch)[0]
    graph = quantized(openvino_graph(network, (size,) * 3), [hu[:1]], count=1)
    predict = tf.function(predictor_of(graph, precision))  # type: ignore[arg-type]
    windows = tf.constant(hu)
    return {
        "infer": lambda: float(predict(windows)[0, 0, 0, 0, 0]),
        "parameters": sum(int(np.prod(weight.shape)) for weight in network.trainable_weights),
    }


def pytorch(precision: str, size: int, batch: int) -> dict[str, Any]:
    """Makes the steps of PyTorch, channels last, and the number of parameters."""
    import torch

    network = pytorch_network().to(memory_format=torch.channels_last_3d)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    hu, label = make_batch(size, batch)
    inputs = torch.from_numpy(hu).movedim(-1, 1)  # of channels-last memory already
    reference = torch.nn.functional.one_hot(torch.from_numpy(label).long(), CLASSES).movedim(-1, 1)
    reference = reference.float().contiguous(memory_format=torch.channels_last_3d)
    mixed = torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bfloat16")
    voxels = (0, 2, 3, 4)

    def train() -> float:
        network.train()
        optimizer.zero_grad(set_to_none=True)
        with mixed:
            logits = network(inputs)
        probabilities = torch.softmax(logits.float(), dim=1)
        shared = (probabilities * reference).sum(voxels)
        dice = 2 * shared / (probabilities.sum(voxels) + reference.sum(voxels))
        loss = 1 - dice.mean()
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    def infer() -> float:
        network.eval()
        with torch.inference_mode(), mixed:
            return float(torch.softmax(network(inputs).float(), dim=1)[0, 0, 0, 0, 0])

    parameters = sum(weight.numel() for weight in network.parameters())
    return {"train": train, "infer": infer, "parameters": parameters}


def pytorch_openvino(precision: str, size: int, batch: int) -> dict[str, Any]:
    """Makes the inference of PyTorch's network by OpenVINO."""
    import torch

    network = torch.nn.Sequential(pytorch_network(), torch.nn.Softmax(dim=1)).eval()
    hu = torch.from_numpy(make_batch(size, batch)[0]).movedim(-1, 1).contiguous()
    compiled = compiled_by_openvino(network, hu, precision)
    return {
        "infer": lambda: float(compiled(hu.numpy())[0][0, 0, 0, 0, 0]),
        "parameters": sum(weight.numel() for weight in network.parameters()),
    }


def compiled_by_openvino(network: Any, windows: Any, precision: str) -> Any:
    """Converts a network of PyTorch for windows (batch, channels, z, y, x) of one size."""
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # it reports each import
    import openvino

    converted = openvino.convert_model(network, example_input=windows, input=windows.shape)
    hint = {"float32": "f32", "bfloat16": "bf16"}[precision]
    options = {"INFERENCE_PRECISION_HINT": hint, "PERFORMANCE_HINT": "LATENCY"}
    return openvino.compile_model(converted, "CPU", options)


def pytorch_network() -> Any:
    """Makes the same layers in the same order."""
    import torch
    from torch import nn

    def normalized(convolution: Any) -> Any:
        norm = nn.BatchNorm3d(convolution.out_channels)
        return nn.Sequential(convolution, norm, nn.ReLU(inplace=True))

    def pair(before: int, filters: int, *, bias: bool = False) -> Any:
        first = nn.Conv3d(before, filters, 3, padding=1, bias=bias)
        second = nn.Conv3d(filters, filters, 3, padding=1, bias=False)
        return nn.Sequential(normalized(first), normalized(second))

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = nn.ModuleList(
                pair(before, filters, bias=before == 1)
                for before, filters in zip((1, *FILTERS), FILTERS, strict=False)
            )
            self.up = nn.ModuleList(
                normalized(nn.ConvTranspose3d(below, filters, 2, stride=2, bias=False))
                for filters, below in itertools.pairwise(FILTERS)
            )
            self.decoder = nn.ModuleList(pair(filters, filters) for filters in FILTERS[:-1])
            self.logits = nn.Conv3d(FILTERS[0], CLASSES, 1)

        def forward(self, hu: Any) -> Any:
            x = torch.clamp((hu + 200) / 500, 0, 1)
            skips = []
            for level, encode in enumerate(self.encoder):
                x = encode(nn.functional.max_pool3d(x, 2) if level else x)
                skips.append(x)
            for up, decode, skip in reversed(
                list(zip(self.up, self.decoder, skips[:-1], strict=True))
            ):
                x = decode(up(x) + skip)
            return self.logits(x)

    return Network()


CONTENDERS = {
    contender.__name__: contender
    for contender in (fcnseg, fcnseg_openvino, fcnseg_int8, pytorch, pytorch_openvino)
}
MODULES = {
    "fcnseg": ("tensorflow",),
    "fcnseg_openvino": ("tensorflow", "openvino"),
    "fcnseg_int8": ("tensorflow", "openvino", "nncf"),
    "pytorch": ("torch",),
    "pytorch_openvino": ("torch", "openvino"),
}
PEERS = ("pytorch", "pytorch_openvino")
STEPS = {"train": ("fcnseg", "pytorch"), "infer": tuple(CONTENDERS)}


def serve(name: str, precision: str, size: int, batch: int) -> None:
    """Runs a step for each word on stdin, and writes its time in seconds."""
    work = CONTENDERS[name](precision, size, batch)
    print(work["parameters"], flush=True)
    for line in sys.stdin:
        step: Step = work[line.strip()]
        started = time.perf_counter()
        step()
        print(time.perf_counter() - started, flush=True)


@contextmanager
def contender(
    name: str, python: str, arguments: list[str], *, script: str = __file__
) -> Iterator[Callable[[str], float]]:
    """Starts a process that runs a step on request, and returns its time in seconds."""
    command = [python, "-W", "ignore", script, "--serve", name, *arguments]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        words, answers = process.stdin, process.stdout
        assert words is not None
        assert answers is not None

        def ask(word: str) -> float:
            if word:
                words.write(word + "\n")
                words.flush()
            answer = answers.readline()
            if not answer:
                raise RuntimeError(f"{name} failed, see above")
            return float(answer)

        yield ask
        words.close()


def measure(precision: str, pythons: dict[str, str], settings: Any) -> dict[str, Any]:
    """Computes medians of one precision, and fcnseg's times relative to that of the faster peer."""
    arguments = [precision, str(settings.size), str(settings.batch)]
    with ExitStack() as stack:
        asks = {
            name: stack.enter_context(contender(name, python, arguments))
            for name, python in pythons.items()
        }
        parameters = {name: int(ask("")) for name, ask in asks.items()}
        assert len(set(parameters.values())) == 1, f"two networks: {parameters}"
        times = {
            step: _times(step, {name: asks[name] for name in names if name in asks}, settings)
            for step, names in STEPS.items()
        }
    return {**times, "parameters": parameters["fcnseg"]}


def _times(step: str, asks: dict[str, Callable[[str], float]], settings: Any) -> dict[str, float]:
    for ask in asks.values():  # the first traces and fills memory
        ask(step)
    draw = random.Random(0)  # what ran before leaves threads and memory behind
    orders = [draw.sample(list(asks), len(asks)) for _ in range(settings.rounds)]
    rounds = [{name: asks[name](step) for name in order} for order in orders]
    peers, own = ([name for name in asks if (name in PEERS) is peer] for peer in (True, False))
    medians = {f"{name}_s": [each[name] for each in rounds] for name in asks}
    parts = {
        f"{name}_part": [each[name] / min(each[peer] for peer in peers) for each in rounds]
        for name in own
    }
    return {key: round(statistics.median(each), 3) for key, each in (medians | parts).items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--peer_python", default=sys.executable, help="Python that has PyTorch and OpenVINO"
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--size", type=int, default=64, help="voxels of a patch along each axis")
    parser.add_argument("--batch", type=int, default=2, help="patches a step")
    parser.add_argument("--precisions", nargs="+", default=PRECISIONS, choices=PRECISIONS)
    parser.add_argument("--serve", nargs=4, help=argparse.SUPPRESS)
    settings = parser.parse_args()
    if settings.serve:
        name, precision, size, batch = settings.serve
        serve(name, precision, int(size), int(batch))
        return
    pythons = pythons_of(MODULES, peers=PEERS, peer_python=settings.peer_python)
    absent = [name for name in STEPS["train"] if name not in pythons]
    if absent:
        parser.error(f"the benchmark needs {' and '.join(absent)}")
    result: dict[str, Any] = {
        "patch": settings.size,
        "batch": settings.batch,
        "cores": os.cpu_count(),
        "rounds": settings.rounds,
    }
    for precision in settings.precisions:
        result[precision] = measure(precision, pythons, settings)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
