"""Servers that give what a test says: the answers of real ones that are busy, broken or stopped."""

from __future__ import annotations

import contextlib
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import grpc
from tensorflow_serving.apis import get_model_metadata_pb2, get_model_status_pb2


@contextlib.contextmanager
def canned_grpc(*answers, port=0, is_ready=False, threads=2):
    """A server whose answers to Predict are the given ones in turn, the last one for ever.

    An answer is a message, a pair of a status code and details, or a function of the context.
    Yields its address and the list of requests as bytes, which grows.
    """
    requests = []

    def predict(request, context):
        requests.append(request)
        answer = answers[min(len(requests), len(answers)) - 1]
        if callable(answer):
            return answer(context)
        if isinstance(answer, tuple):
            context.abort(*answer)
        return answer.SerializeToString()

    def status(_, context):
        if not is_ready:
            context.abort(grpc.StatusCode.NOT_FOUND, "Could not find any versions of model fcnseg")
        ready = get_model_status_pb2.GetModelStatusResponse()
        ready.model_version_status.add(version=1, state="AVAILABLE")
        return ready.SerializeToString()

    def metadata(_, context):
        found = get_model_metadata_pb2.GetModelMetadataResponse()
        found.model_spec.version.value = 1
        return found.SerializeToString()

    server = grpc.server(ThreadPoolExecutor(threads))
    for service, method, answer in (
        ("PredictionService", "Predict", predict),
        ("PredictionService", "GetModelMetadata", metadata),
        ("ModelService", "GetModelStatus", status),
    ):
        handler = grpc.unary_unary_rpc_method_handler(answer)
        name = f"tensorflow.serving.{service}"
        server.add_generic_rpc_handlers(
            [grpc.method_handlers_generic_handler(name, {method: handler})]
        )
    port = server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    try:
        yield f"127.0.0.1:{port}", requests
    finally:
        server.stop(None).wait()


@contextlib.contextmanager
def canned_http(*answers):
    """A server whose answers to POST are the given ones in turn, and to GET the first one.

    An answer is a pair of a status and a body. Yields its address and the list of paths.
    """
    paths = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.answer(answers[0])

        def do_POST(self):
            self.rfile.read(int(self.headers["content-length"]))
            paths.append(self.path)
            self.answer(answers[min(len(paths), len(answers) - 1)])

        def answer(self, answer):
            status, body = answer
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", paths
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextlib.contextmanager
def hanging_up():
    """A server that closes each connection once it has read a little. Yields its port."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve():
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = server.accept()
                    with connection:
                        connection.recv(64)

        thread = threading.Thread(target=serve)
        thread.start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
    thread.join()
