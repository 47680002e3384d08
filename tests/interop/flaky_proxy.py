"""A hop before the Collector that turns a share of its answers into "unavailable".

Half of the faults come instead of the Collector, so nothing arrived; half come after it took the
request, so that a sender which tries again makes duplicates. Some faults say when to come back.
The faults are drawn by a seed. Bytes are handed on as they are.
"""

import http.client
import random
import threading
from concurrent import futures
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2

from processes import LOOPBACK

RETRY_DELAY_MS = 20
MESSAGE_BYTES_MAX = 64 * 1024 * 1024


class Faults:
    """Which requests go wrong, and how: the dice of a proxy."""

    def __init__(self, seed: int, share: float):
        self._rng, self._share, self._lock = random.Random(seed), share, threading.Lock()
        self.requests = self.instead = self.after = 0

    def draw(self) -> tuple[str | None, bool]:
        """None, "instead" or "after"; and whether the fault names a delay."""
        with self._lock:
            self.requests += 1
            # The first request always fails: a run with few requests has a fault too.
            if self.requests > 1 and self._rng.random() >= self._share:
                return None, False
            kind = self._rng.choice(["instead", "after"])
            setattr(self, kind, getattr(self, kind) + 1)
            return kind, self._rng.random() < 0.5

    def __str__(self) -> str:
        return (
            f"{self.instead + self.after} of {self.requests} requests answered unavailable, "
            f"{self.after} of them after delivery"
        )


class FlakyGrpc(grpc.GenericRpcHandler):
    """gRPC in, gRPC out, any unary method, messages as bare bytes."""

    def __init__(self, port: int, target: str, faults: Faults):
        self.faults = faults
        size = [("grpc.max_receive_message_length", MESSAGE_BYTES_MAX)]
        self._upstream = grpc.insecure_channel(target, options=size)
        self._server = grpc.server(futures.ThreadPoolExecutor(16), [self], options=size)
        self._server.add_insecure_port(f"{LOOPBACK}:{port}")

    def start(self) -> None:
        self._server.start()

    def stop(self) -> None:
        self._server.stop(grace=1).wait(5)
        self._upstream.close()

    def service(self, details):
        forward = self._upstream.unary_unary(details.method)
        return grpc.unary_unary_rpc_method_handler(
            lambda body, context: self._answer(forward, body, context)
        )

    def _answer(self, forward, body: bytes, context) -> bytes:
        fault, names_delay = self.faults.draw()
        answer = b""
        if fault != "instead":
            try:
                answer = forward(body, timeout=10)
            except grpc.RpcError as error:
                context.abort(error.code(), error.details())
        if fault:
            if names_delay:
                context.set_trailing_metadata([("grpc-status-details-bin", retry_info())])
            context.abort(grpc.StatusCode.UNAVAILABLE, "a fault on purpose")
        return answer


def retry_info() -> bytes:
    """A google.rpc.Status that says when to come back."""
    delay = duration_pb2.Duration(nanos=RETRY_DELAY_MS * 1_000_000)
    detail = any_pb2.Any()
    detail.Pack(error_details_pb2.RetryInfo(retry_delay=delay))
    status = status_pb2.Status(code=grpc.StatusCode.UNAVAILABLE.value[0], details=[detail])
    return status.SerializeToString()


class FlakyHttp:
    """HTTP/1.1 in and out. A fault is 503; one that names a delay says Retry-After: 1."""

    def __init__(self, port: int, target: str, faults: Faults):
        self.faults = faults
        handler = type("Handler", (_HttpHandler,), {"faults": faults, "target": target})
        self._server = ThreadingHTTPServer((LOOPBACK, port), handler)
        self._server.daemon_threads = True

    def start(self) -> None:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class _HttpHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    faults: Faults
    target: str

    def do_POST(self) -> None:
        body = self._body()
        fault, names_delay = self.faults.draw()
        status, content_type, answer = 503, "text/plain", b"a fault on purpose"
        if fault != "instead":
            delivered = self._forward(body)
            if not fault:
                status, content_type, answer = delivered
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(answer)))
        if fault and names_delay:
            self.send_header("Retry-After", "1")
        self.end_headers()
        self.wfile.write(answer)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers["Content-Length"]))
        body = b""
        while length := int(self.rfile.readline().split(b";")[0], 16):
            body += self.rfile.read(length)
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass
        return body

    def _forward(self, body: bytes) -> tuple[int, str, bytes]:
        kept = ("content-type", "content-encoding")
        headers = {name: value for name, value in self.headers.items() if name.lower() in kept}
        upstream = http.client.HTTPConnection(self.target, timeout=10)
        try:
            upstream.request("POST", self.path, body, headers)
            answer = upstream.getresponse()
            return answer.status, answer.getheader("Content-Type", ""), answer.read()
        except OSError as error:
            return 502, "text/plain", str(error).encode()
        finally:
            upstream.close()

    def log_message(self, *_) -> None:
        """A test prints one line a scenario, not one a request."""
