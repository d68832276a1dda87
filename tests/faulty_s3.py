"""A proxy in front of the S3 server that fails as real storage does: busy, cut off, silent, or short of its bytes.

Every request is noted with its time, so that a test can say how often a client tried, and how long it paused.
"""

from __future__ import annotations

import http.client
import os
import re
import threading
import time
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from typing import Literal
from urllib.parse import urlsplit

import pytest

from alray.storage import clients

TRIES = 4

How = Literal["500", "503", "SlowDown", "403", "cut", "lost", "hang", "short"]
"""How a request fails. `cut`: the connection ends unanswered. `lost`: the same, but the server has done what was asked.
`hang`: no answer, the connection stays. `short`: half of the answer's bytes, and the end."""

ERROR = "<?xml version='1.0'?><Error><Code>{code}</Code><Message>as the test wants it</Message></Error>"
CODES: dict[str, tuple[int, str]] = {
    "500": (500, "InternalError"),
    "503": (503, "ServiceUnavailable"),
    "SlowDown": (503, "SlowDown"),
    "403": (403, "AccessDenied"),
}


@dataclass
class Fault:
    """What goes wrong: requests `METHOD /bucket/key?query` that match `which`, the first `times` of them, or all."""

    which: str
    how: How
    times: int | None = None
    then: Callable[[], None] | None = None
    """What happens beside each failure, before it."""

    at: list[float] = field(default_factory=list)
    """When each request that matches came, those that were let through after the faults too."""

    def hits(self, request: str) -> bool:
        """Note a request that matches; say whether it is to fail."""
        if not re.search(self.which, request):
            return False
        self.at.append(time.monotonic())
        hit = self.times is None or len(self.at) <= self.times
        if hit and self.then is not None:
            self.then()
        return hit

    @property
    def pauses(self) -> list[float]:
        """Seconds between one request and the next."""
        return [after - before for before, after in pairwise(self.at)]


class FaultyS3:
    """The proxy's side that a test holds: `url`, the faults, and every request so far."""

    def __init__(self, behind: str) -> None:
        self.behind = urlsplit(behind).netloc
        self.faults: list[Fault] = []
        self.requests: list[str] = []
        self.released = threading.Event()
        self.gone = threading.Event()  # once set, every request is cut
        self._lock = threading.Lock()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"proxy": self}))
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def fail(self, which: str, how: How, times: int | None = None) -> Fault:
        """Let requests fail from now on."""
        fault = Fault(which, how, times)
        self.faults.append(fault)
        return fault

    def heal(self) -> None:
        """Let every request through again."""
        self.faults.clear()

    def verdict(self, request: str) -> How | None:
        """Note a request and say how it fails, if it does."""
        with self._lock:
            self.requests.append(request)
            found: How | None = next((fault.how for fault in self.faults if fault.hits(request)), None)
            return "cut" if self.gone.is_set() else found


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # an answer is one packet: two would wait for each other
    disable_nagle_algorithm = True
    proxy: FaultyS3

    def _serve(self) -> None:
        body = self._body()
        how = self.proxy.verdict(f"{self.command} {self.path}")
        if how == "hang":
            self.proxy.released.wait()
        if how in ("hang", "cut"):
            self.close_connection = True
            return
        if how in CODES:
            status, code = CODES[how]
            self._answer(status, [("Content-Type", "application/xml")], ERROR.format(code=code).encode())
            return
        status, headers, data = self._forward(body)
        if how == "lost":
            self.close_connection = True
            return
        self._answer(status, headers, data, short=how == "short")

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _serve

    def handle_expect_100(self) -> bool:
        """Let the body come at once: its sender waits a second for leave."""
        going_on = super().handle_expect_100()
        self.wfile.flush()
        return going_on

    def _body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _forward(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        own = {"expect", "transfer-encoding", "connection", "content-length"}
        headers = {name: value for name, value in self.headers.items() if name.lower() not in own}
        server = http.client.HTTPConnection(self.proxy.behind, timeout=60)
        try:
            server.request(self.command, self.path, body, {**headers, "Content-Length": str(len(body))})
            answer = server.getresponse()
            return answer.status, answer.getheaders(), answer.read()
        finally:
            server.close()

    def _answer(self, status: int, headers: list[tuple[str, str]], data: bytes, *, short: bool = False) -> None:
        self.send_response_only(status)
        told = {name.lower() for name, _ in headers}
        for name, value in headers:
            if name.lower() not in ("connection", "transfer-encoding"):
                self.send_header(name, value)
        if "content-length" not in told:
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data[: len(data) // 2] if short else data)
        self.close_connection = self.close_connection or short

    def log_message(self, *_: object) -> None:
        """Say nothing: the requests are noted."""


@contextmanager
def in_front_of(behind: str) -> Iterator[FaultyS3]:
    """Run the proxy before the S3 server at `behind`."""
    proxy = FaultyS3(behind)
    thread = threading.Thread(target=proxy.server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        proxy.released.set()
        proxy.server.shutdown()
        proxy.server.server_close()
        thread.join()


@contextmanager
def between(*, answer_s: float = 5, tries: int = TRIES, pause_s: float = 0.04) -> Iterator[FaultyS3]:
    """Put the proxy before the S3 server that AWS_* name; tries are few, and boto3's pauses are not left to chance."""
    with in_front_of(os.environ["AWS_ENDPOINT_URL_S3"]) as proxy, pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL_S3", proxy.url)
        patch.setattr(clients, "ANSWER_S", answer_s)
        patch.setattr(clients, "ATTEMPTS", tries)
        patch.setattr(clients, "PYARROW_RETRIES", tries - 1)
        patch.setattr("botocore.retryhandler.random", types.SimpleNamespace(random=lambda: pause_s))
        yield proxy


def put_behind(proxy: FaultyS3, uri: str, data: bytes, **more: str) -> None:
    """Write past the proxy."""
    import boto3

    bucket, _, key = uri.removeprefix("s3://").partition("/")
    client = boto3.session.Session().client("s3", endpoint_url=f"http://{proxy.behind}")
    client.put_object(Bucket=bucket, Key=key, Body=data, **more)
