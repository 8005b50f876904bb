"""A local server of a model while a block of a test runs."""

from __future__ import annotations

import contextlib

from pipelines.worker_pool import free_port
from serving.local_server import LocalServer
from serving.server import ServerCommand


@contextlib.contextmanager
def running_server(model_dir, *, model_name="fcnseg", **flags):
    """Yields the addresses of its two interfaces, as a client takes them."""
    ports = {"port": free_port(), "rest_api_port": free_port()}
    poll = {"file_system_poll_wait_seconds": 0.05}
    with LocalServer(ServerCommand(model_dir, model_name=model_name, **ports, **poll, **flags)):
        yield f"127.0.0.1:{ports['port']}", f"http://127.0.0.1:{ports['rest_api_port']}"
