"""TensorFlow Serving in Docker while a block of a test runs, as `make verify-docker` asks for."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
import urllib.request

import pytest

IMAGE = os.environ.get("FCNSEG_TFSERVING_IMAGE")
"""The image; None if the local server is to be asked instead."""
SEEN_AS = "/models"
"""The served folder in the container."""

_PORTS = ("8500", "8501")
_READY_S = 120


@contextlib.contextmanager
def real_server(folder, *flags, model_name):
    """Serves a folder by a container, until the model is ready; yields the ports of gRPC and REST.

    Args:
        folder: The folder; all may read it then, as the server is another user.
        flags: Flags of the server, which see the folder as `SEEN_AS`.
        model_name: Name of the model to wait for.
    """
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755)
    published = [word for port in _PORTS for word in ("-p", f"127.0.0.1::{port}")]
    run = ["docker", "run", "--rm", "--detach", *published, "-v", f"{folder}:{SEEN_AS}:ro"]
    server = ["--entrypoint", "tensorflow_model_server", IMAGE, "--port=8500"]
    container = _output(*run, *server, "--rest_api_port=8501", *flags)
    try:
        # A line for each address, as of IPv4 and IPv6.
        lines = [_output("docker", "port", container, port).splitlines()[0] for port in _PORTS]
        grpc_port, rest_port = (int(line.rpartition(":")[2]) for line in lines)
        _wait_until_ready(f"http://127.0.0.1:{rest_port}/v1/models/{model_name}")
        yield grpc_port, rest_port
    finally:
        subprocess.run(["docker", "kill", container], check=True, capture_output=True)


def _output(*command):
    return subprocess.check_output(command, text=True).strip()


def _wait_until_ready(url):
    deadline = time.monotonic() + _READY_S
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=10) as response:
            if b'"AVAILABLE"' in response.read():
                return
        time.sleep(1)
    pytest.fail(f"the real server is not ready after {_READY_S} s")
