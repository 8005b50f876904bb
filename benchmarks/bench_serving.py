"""Benchmarks the local server against the same signature called in this process.

A network of some levels over noise at 2 mm, to which 512 x 512 x 200 is brought from 0.8 mm, with
windows of 64^3. `segment_volume` is sent as raw bytes and as typed fields over gRPC, and, if it is
small, as numbers over REST; `segment_nifti`, where the model has it, as bytes over gRPC and as
base64 over REST; each must give the mask of this process. All alternate. Then 1, 2, 4 and 8 clients
call, by default with `segment_volume` over gRPC; 12 clients call a server that takes 4 at a time,
whose only other answer must be that it is busy; and a version is published and taken back while 4
clients call. The server has a process of its own; its memory is the peak above that before the
first call. Needs Linux, for /proc. Prints one JSON line each: of a size with medians in seconds and
their parts of the time in this process, of a number of clients and a way, of the limit, and of the
reload.

    python benchmarks/bench_serving.py --large --ways grpc nifti_grpc nifti_rest rest_numbers
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import gzip
import http.client
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import nibabel as nib
import numpy as np

from fcnseg.client.messages import message_class
from fcnseg.client.tensors import read_tensor, write_tensor
from fcnseg.config import ModelConfig
from fcnseg.inference import make_segmenter
from fcnseg.networks.build import build_fcn
from fcnseg.runs.model_info import ModelInfo
from fcnseg.saved_model.export import export_segmenter
from fcnseg.saved_model.session import SavedModelSession
from fcnseg.saved_model.signatures import SEGMENT_NIFTI, SEGMENT_VOLUME

SMALL, LARGE = (128, 128, 128), (200, 512, 512)  # (z, y, x)
SPACING_MM = 2.0  # of the network, and of the small volume
LARGE_SPACING_MM = (2.0, 0.8, 0.8)  # (z, y, x): a CT is at most 1000 mm wide
CLIENTS = (1, 2, 4, 8)
RUNNING, WAITING, MANY = 2, 2, 12  # calls that a server takes, and clients beyond them
BUSY = {"RESOURCE_EXHAUSTED", "429"}
NO_LIMIT = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
TIMEOUT_S = 1800
MOST_LIMIT_S = 60.0  # for which the limit is reached
SEED = 1  # of the weights: others give masks with more borders, which take longer to resample
WAYS = ("grpc", "nifti_grpc", "nifti_rest", "rest_numbers")

PredictRequest = message_class("tensorflow.serving.PredictRequest")
PredictResponse = message_class("tensorflow.serving.PredictResponse")


def publish(folder: Path, filters: list[int]) -> Path:
    """Exports an untrained network, and gives its version's folder."""
    import keras  # after fcnseg, which switches oneDNN on

    keras.utils.set_random_seed(SEED)
    config = ModelConfig(filters=tuple(filters))
    info = ModelInfo(
        class_names=tuple(map(str, range(8))),
        spacing_mm=(SPACING_MM,) * 3,
        hu_window=config.hu_window,
        window=(64, 64, 64),
        overlap=(16, 16, 16),
        batch_size=2,
        max_voxels=int(np.prod(LARGE)),
    )
    return export_segmenter(make_segmenter(build_fcn(config, num_classes=8), info), folder)


class RestError(Exception):
    """An answer of REST that is an error; its arguments are the status and the message."""


class Server:
    """A local server in a process of its own."""

    def __init__(self, models: Path, *flags: str) -> None:
        command = [sys.executable, "-m", "serving.server", f"--model_base_path={models}"]
        command += ["--port=-1", "--rest_api_port=-1", f"--rest_api_timeout_in_ms={TIMEOUT_S}000"]
        command += ["--file_system_poll_wait_seconds=0.1", *flags]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        words = self._process.stdout.readline().split()
        self._channel = grpc.insecure_channel(words[words.index("(gRPC)") - 1], options=NO_LIMIT)
        self._rest = words[words.index("(REST)") - 1].split("/")[2]
        self._idle_mib = self._memory_mib("VmRSS")

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *exception: object) -> None:
        self._channel.close()
        self._process.terminate()
        self._process.wait()

    def grpc(self, signature: str, inputs: dict[str, Any], *, as_content: bool = True) -> Any:
        """Outputs of a signature over gRPC, and the version that answered."""
        request = PredictRequest()
        request.model_spec.name, request.model_spec.signature_name = "fcnseg", signature
        for name, array in inputs.items():
            write_tensor(array, request.inputs[name], as_content=as_content)
        call = self._channel.unary_unary(
            "/tensorflow.serving.PredictionService/Predict",
            request_serializer=PredictRequest.SerializeToString,
            response_deserializer=PredictResponse.FromString,
        )
        response = call(request, timeout=TIMEOUT_S)
        outputs = {name: read_tensor(tensor) for name, tensor in response.outputs.items()}
        return outputs, response.model_spec.version.value

    def rest(self, signature: str, inputs: dict[str, Any]) -> Any:
        """Outputs of a signature over REST."""
        body = json.dumps({"signature_name": signature, "inputs": inputs})
        with contextlib.closing(http.client.HTTPConnection(self._rest)) as connection:
            connection.request("POST", "/v1/models/fcnseg:predict", body)
            response = connection.getresponse()
            content = json.loads(response.read())
        if response.status != 200:
            raise RestError(response.status, content["error"])
        return content["outputs"]

    def peak_mib(self) -> float:
        """The most memory so far, above that before the first call."""
        return self._memory_mib("VmHWM") - self._idle_mib

    def _memory_mib(self, field: str) -> float:
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        return int(status.split(f"{field}:")[1].split()[0]) / 1024


def make_inputs(
    shape: tuple[int, ...], spacing_mm: tuple[float, ...] = (SPACING_MM,) * 3
) -> dict[str, Any]:
    hu = np.random.default_rng(0).normal(0, 200, shape).astype(np.int16)
    return {"volume": hu, "spacing": np.array(spacing_mm, np.float32)}


def contenders(
    session: SavedModelSession, typed: Server, content: Server, inputs: dict[str, Any]
) -> dict[str, Callable[[], Any]]:
    """Makes the ways to segment a volume by name; each gives a mask."""
    ways: dict[str, Callable[[], Any]] = {
        "in_process": lambda: session.run(SEGMENT_VOLUME, inputs)["labels"],
        "grpc": lambda: content.grpc(SEGMENT_VOLUME, inputs)[0]["labels"],
        "grpc_typed": lambda: typed.grpc(SEGMENT_VOLUME, inputs)[0]["labels"],
    }
    if inputs["volume"].shape != LARGE:  # 52 million numbers in JSON take minutes
        lists = {name: array.tolist() for name, array in inputs.items()}
        ways["rest_numbers"] = lambda: np.array(
            content.rest(SEGMENT_VOLUME, lists)["labels"], np.uint8
        )
    if SEGMENT_NIFTI in session.signatures:
        image = nib.Nifti1Image(inputs["volume"].T, np.diag([*inputs["spacing"][::-1], 1.0]))
        packed = gzip.compress(image.to_bytes(), 1)
        raw = {"nifti_bytes": np.array(packed, object)}
        text = {"nifti_bytes": {"b64": base64.b64encode(packed).decode()}}
        ways |= {
            "nifti_in_process": lambda: mask_of(session.run(SEGMENT_NIFTI, raw)),
            "nifti_grpc": lambda: mask_of(content.grpc(SEGMENT_NIFTI, raw)[0]),
            "nifti_rest": lambda: mask_of(content.rest(SEGMENT_NIFTI, text)),
        }
    return ways


def mask_of(outputs: dict[str, Any]) -> Any:
    """The mask (z, y, x) in a reply of `segment_nifti`."""
    file = outputs["labels_nifti_bytes"]
    file = base64.b64decode(file["b64"]) if isinstance(file, dict) else file.item()
    return np.asarray(nib.Nifti1Image.from_bytes(file).dataobj).T


def measure(ways: dict[str, Callable[[], Any]], rounds: int) -> dict[str, Any]:
    """Computes medians, and their parts of the time of the same in this process."""
    mask = ways["in_process"]()  # the first traces
    for name, way in ways.items():
        assert np.array_equal(way(), mask), f"{name} gives another mask"
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            started = time.perf_counter()
            way()
            times[name].append(time.perf_counter() - started)
    result = {f"{name}_s": round(statistics.median(each), 3) for name, each in times.items()}
    for name, each in times.items():
        base = times["nifti_in_process" if name.startswith("nifti") else "in_process"]
        parts = [a / b for a, b in zip(each, base, strict=True)]
        result[f"{name}_part"] = round(statistics.median(parts), 3)
    return result


class Load:
    """Clients that call one after the other, each in a thread, until they are stopped."""

    def __init__(self, way: Callable[[], Any], clients: int) -> None:
        self._way = way
        self.seconds: list[float] = []
        self.codes: dict[str, int] = {}
        self._stopped = threading.Event()
        self._threads = [threading.Thread(target=self._call) for _ in range(clients)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join()

    def _call(self) -> None:
        while not self._stopped.is_set():
            started, code = time.perf_counter(), "OK"
            try:
                self._way()
            except grpc.RpcError as error:
                code = error.code().name
            except RestError as error:
                code = str(error.args[0])
            self.codes[code] = self.codes.get(code, 0) + 1
            if code in BUSY:
                self._stopped.wait(0.5)  # as a client does that comes again
            else:
                self.seconds.append(time.perf_counter() - started)


def measure_load(
    server: Server, name: str, way: Callable[[], Any], clients: int, seconds: float
) -> dict[str, Any]:
    """Computes latencies and throughput of some clients at once, of calls that are answered."""
    started = time.perf_counter()
    with Load(way, clients) as load:
        time.sleep(seconds)
    elapsed = time.perf_counter() - started
    assert load.codes.keys() - BUSY == {"OK"}, f"calls failed: {load.codes}"
    percentiles = np.percentile(load.seconds, [50, 95, 99]).round(3).tolist()
    return {
        "way": name,
        "clients": clients,
        **dict(zip(("p50_s", "p95_s", "p99_s"), percentiles, strict=True)),
        "calls_a_second": round(len(load.seconds) / elapsed, 2),
        "codes": load.codes,
        "peak_mib": round(server.peak_mib()),
    }


def measure_limit(
    models: Path,
    session: SavedModelSession,
    inputs: dict[str, Any],
    *,
    names: list[str],
    seconds: float,
) -> Iterator[dict[str, Any]]:
    """Calls a server with more clients than it takes: it answers, or says that it is busy."""
    flags = [f"--max_running_calls={RUNNING}", f"--max_waiting_calls={WAITING}"]
    for name in names:
        with Server(models, "--enable_serialization_as_tensor_content", *flags) as server:
            way = contenders(session, server, server, inputs)[name]
            way()
            load = measure_load(server, name, way, MANY, seconds)
        assert load["codes"].keys() & BUSY, f"the limit was not reached: {load}"
        yield {"limit": RUNNING + WAITING, **load}


def measure_reload(server: Server, inputs: dict[str, Any], version: Path, seconds: float) -> Any:
    """Publishes a copy of a version while clients call, and takes it back."""
    newer, hidden = version.with_name("2"), version.with_name(".tmp-2")
    versions: set[int] = set()
    with Load(lambda: versions.add(server.grpc(SEGMENT_VOLUME, inputs)[1]), 4) as load:
        time.sleep(seconds / 3)
        shutil.copytree(version, hidden)
        hidden.rename(newer)
        time.sleep(seconds / 3)
        shutil.rmtree(newer)
        time.sleep(seconds / 3)
    assert load.codes.keys() == {"OK"}, f"calls failed: {load.codes}"
    return {
        "reload": True,
        "codes": load.codes,
        "versions": sorted(versions),
        "peak_mib": round(server.peak_mib()),
    }


@contextlib.contextmanager
def servers(models: Path) -> Iterator[tuple[Server, Server]]:
    """Servers whose replies are typed fields, and raw bytes."""
    flag = "--enable_serialization_as_tensor_content"
    with Server(models) as typed, Server(models, flag) as content:
        yield typed, content


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--filters", type=int, nargs="+", default=[8, 16, 32])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=60.0, help="for each number of clients")
    parser.add_argument("--size", type=int, default=SMALL[0], help="of the volume, 40 or more")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS[:1], help="under load")
    parser.add_argument("--large", action="store_true", help="512 x 512 x 200 too")
    settings = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        version = publish(Path(folder), settings.filters)
        session = SavedModelSession(version)
        small = (settings.size,) * 3
        volumes = [make_inputs(small)]
        if settings.large:
            volumes.append(make_inputs(LARGE, LARGE_SPACING_MM))
        for inputs in volumes:
            with servers(Path(folder)) as (typed, content):
                ways = contenders(session, typed, content, inputs)
                result = {"shape": inputs["volume"].shape, "cores": os.cpu_count()}
                result |= measure(ways, settings.rounds)
                print(json.dumps(result | {"peak_mib": round(content.peak_mib())}), flush=True)
        inputs = make_inputs(small)
        with Server(Path(folder), "--enable_serialization_as_tensor_content") as server:
            ways = contenders(session, server, server, inputs)
            for name in settings.ways:
                ways[name]()
                for clients in CLIENTS:
                    load = measure_load(server, name, ways[name], clients, settings.seconds)
                    print(json.dumps(load), flush=True)
            print(json.dumps(measure_reload(server, inputs, version, settings.seconds)))
        seconds = min(settings.seconds, MOST_LIMIT_S)
        for load in measure_limit(
            Path(folder), session, inputs, names=settings.ways, seconds=seconds
        ):
            print(json.dumps(load), flush=True)


if __name__ == "__main__":
    main()
