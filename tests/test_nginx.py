"""nginx with the configuration of serving/deployment before a server: TLS, users, limits."""

from __future__ import annotations

import base64
import contextlib
import shutil
import socket
import ssl
import subprocess
import threading
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import numpy as np
import pytest
from canned_servers import canned_grpc
from grpc_health.v1 import health_pb2
from half_plus_two import write_half_plus_two
from running_server import running_server
from small_models import CROP, make_oblique_volume
from tensorflow_serving.apis import get_model_status_pb2, model_management_pb2, predict_pb2

from fcnseg.client import Credentials, SegmentationClient, ServerError, TooBusyError
from pipelines.worker_pool import free_port

CONFIG = Path(__file__).parent.parent / "serving/deployment/nginx/nginx.conf"
NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
pytestmark = [
    pytest.mark.skipif(NGINX is None, reason="nginx is not installed (apt-get install nginx)"),
    pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed"),
]
USER, PASSWORD = "me", "secret"
VOLUME = make_oblique_volume((4, 5, 6))


def write_secrets(folder):
    folder.mkdir()
    names = ["-keyout", folder / "tls.key", "-out", folder / "tls.crt"]
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    subprocess.run(
        [
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-days",
            "2",
            *names,
            *subject,
        ],
        check=True,
        capture_output=True,
    )
    done = subprocess.run(
        ["openssl", "passwd", "-apr1", PASSWORD], check=True, capture_output=True, text=True
    )
    (folder / "users").write_text(f"{USER}:{done.stdout}")


class Proxy:
    """nginx before two ports of this machine; a context manager."""

    def __init__(self, folder, grpc_port, rest_port, **changes):
        write_secrets(folder / "secrets")
        self.port = free_port()
        text = CONFIG.read_text()
        ports = {"8443": self.port, "127.0.0.1:8501": f"127.0.0.1:{rest_port}"}
        ports |= {"127.0.0.1:8500": f"127.0.0.1:{grpc_port}", "/run/": f"{folder}/"}
        for old, new in {**ports, **changes}.items():
            assert old in text
            text = text.replace(old, str(new))
        (folder / "nginx.conf").write_text(text)
        self.ca_file = folder / "secrets/tls.crt"
        self.folder = folder
        self.log = folder / "log"

    def __enter__(self):
        argv = [NGINX, "-p", self.folder, "-c", self.folder / "nginx.conf"]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [*argv, "-g", "daemon off; user root;"], stdout=log, stderr=log
            )
        for _ in range(200):
            with socket.socket() as trial:
                if trial.connect_ex(("127.0.0.1", self.port)) == 0:
                    return self
            assert self.process.poll() is None, self.log.read_text()
            time.sleep(0.05)
        raise AssertionError(self.log.read_text())

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()

    def client(self, scheme, *, password=PASSWORD, **options):
        return SegmentationClient(
            f"{scheme}://localhost:{self.port}",
            credentials=Credentials(USER, password, self.ca_file),
            **options,
        )


@pytest.fixture(scope="module")
def proxy(tmp_path_factory):
    folder = tmp_path_factory.mktemp("nginx")
    write_half_plus_two(folder / "models/1")
    with running_server(folder / "models") as (over_grpc, over_rest):
        ports = [address.rpartition(":")[2] for address in (over_grpc, over_rest)]
        with Proxy(folder, *ports) as running:
            yield running


def test_the_configuration_is_one_that_nginx_takes(proxy):
    argv = [NGINX, "-t", "-p", proxy.folder, "-c", proxy.folder / "nginx.conf"]
    done = subprocess.run(argv, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "[warn]" not in done.stderr


SCHEMES = ("https", "grpcs")


@pytest.mark.parametrize("scheme", SCHEMES)
def test_both_interfaces_answer_over_tls(proxy, scheme):
    with proxy.client(scheme) as client:
        assert client.wait_until_ready(0).version == 1
        assert client.metadata().signatures["serving_default"].outputs["y"].dtype == "float32"
        outputs = client._predict("serving_default", {"x": np.array([1.0, 5.0], np.float32)})
    np.testing.assert_array_equal(outputs["y"], [2.5, 4.5])


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_password_is_needed(proxy, scheme):
    client = proxy.client(scheme, password="wrong")
    with client, pytest.raises(ServerError, match="asks for a user and a password: 401"):
        client.status()
    assert "wrong" not in proxy.log.read_text()


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_certificate_of_no_known_authority_is_refused(proxy, scheme):
    client = SegmentationClient(f"{scheme}://localhost:{proxy.port}")
    with client, pytest.raises(ServerError, match="certificate .* is not trusted|no server at"):
        client.status()


def request(proxy, path, body=None, method=None):
    token = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    made = urllib.request.Request(
        f"https://localhost:{proxy.port}{path}",
        body,
        {"authorization": f"Basic {token}"},
        method=method,
    )
    context = ssl.create_default_context(cafile=proxy.ca_file)
    try:
        with urllib.request.urlopen(made, context=context) as response:
            return response.status
    except urllib.error.HTTPError as error:
        with error:
            return error.code


@pytest.mark.parametrize(
    ("path", "body", "method", "status"),
    [
        ("/v1/models/fcnseg", None, "GET", 200),
        ("/v1/models/fcnseg/metadata", None, "GET", 200),
        ("/v1/models/fcnseg", None, "DELETE", 403),
        ("/monitoring/prometheus/metrics", None, "GET", 404),
        ("/", None, "GET", 404),
        ("/v1/models/fcnseg:predict", b"{}", "POST", 400),
    ],
)
def test_what_is_let_through(proxy, path, body, method, status):
    assert request(proxy, path, body, method) == status


def call_of(proxy, method, request):
    """The code of a gRPC call."""
    token = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    trusted = grpc.ssl_channel_credentials(proxy.ca_file.read_bytes())
    with grpc.secure_channel(f"localhost:{proxy.port}", trusted) as channel:
        call = channel.unary_unary(method, type(request).SerializeToString)
        try:
            call(request, timeout=10, metadata=[("authorization", f"Basic {token}")])
        except grpc.RpcError as error:
            return error.code().name
        return "OK"


def test_users_cannot_reload_the_models(proxy):
    service = "/tensorflow.serving.ModelService"
    empty = model_management_pb2.ReloadConfigRequest()
    empty.config.model_config_list.SetInParent()
    assert call_of(proxy, f"{service}/HandleReloadConfigRequest", empty) == "PERMISSION_DENIED"
    status = get_model_status_pb2.GetModelStatusRequest(model_spec={"name": "fcnseg"})
    assert call_of(proxy, f"{service}/GetModelStatus", status) == "OK"
    run = "/tensorflow.serving.SessionService/SessionRun"  # which the server has too
    assert call_of(proxy, run, status) == "UNIMPLEMENTED"
    assert call_of(proxy, "/grpc.health.v1.Health/Check", health_pb2.HealthCheckRequest()) == "OK"


def test_a_body_above_the_limit_is_refused(tmp_path):
    with canned_grpc(predict_pb2.PredictResponse()) as (server, requests):
        small = {"client_max_body_size 2g": "client_max_body_size 1k"}
        with Proxy(tmp_path, server.rpartition(":")[2], free_port(), **small) as proxy:
            volume = make_oblique_volume((20, 20, 20))
            client, message = proxy.client("grpcs", retry_s=0), "takes no body as large as this"
            with client, pytest.raises(ServerError, match=message):
                client.segment(volume, accept=CROP)
            assert request(proxy, "/v1/models/fcnseg:predict", b"x" * 2000) == 413
        assert not requests


def test_requests_above_the_limit_are_answered_429_and_come_again(tmp_path):
    """Of six calls at once four run; the client repeats the others until they are let in."""
    go = threading.Event()

    def wait(_):
        go.wait(20)
        return predict_pb2.PredictResponse().SerializeToString()

    def segment(client, kind):
        with pytest.raises(kind):
            client.segment(VOLUME, accept=CROP)

    with contextlib.ExitStack() as stack:
        server, requests = stack.enter_context(canned_grpc(wait, threads=8, is_ready=True))
        proxy = stack.enter_context(Proxy(tmp_path, server.rpartition(":")[2], free_port()))
        patient = stack.enter_context(proxy.client("grpcs", retry_s=20))
        pool = stack.enter_context(ThreadPoolExecutor(6))
        calls = [pool.submit(segment, patient, ServerError) for _ in range(2)]
        while len(requests) < 2:
            time.sleep(0.02)
        assert patient.wait_until_ready(0).version == patient.metadata().version == 1
        hasty = proxy.client("grpcs", retry_s=0)
        with hasty, pytest.raises(TooBusyError, match="is busy: too many requests"):
            hasty.segment(VOLUME, accept=CROP)
        assert request(proxy, "/v1/models/fcnseg:predict", b"{}") == 429
        calls += [pool.submit(segment, patient, ServerError) for _ in range(2)]
        time.sleep(0.3)
        assert len(requests) == 2
        go.set()
        for call in calls:
            call.result()
        assert len(requests) == 4


def test_a_server_that_is_gone_is_told_apart_from_the_proxy(tmp_path):
    with Proxy(tmp_path, free_port(), free_port()) as proxy:
        for scheme in SCHEMES:
            client = proxy.client(scheme)
            with client, pytest.raises(ServerError, match="no server at .*502 Bad Gateway"):
                client.status()
