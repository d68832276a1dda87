"""What several tests share: a real S3 server, a real local Ray, and one torch thread."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
import uuid
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from alray.runtime import Runtime

# Before any test module is imported, since Ray reads some of these when it is.
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
# Ray's workers import what tests send them by name (faults.py).
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [os.path.dirname(__file__), os.environ.get("PYTHONPATH")]))
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")
os.environ.setdefault("AWS_EC2_METADATA_DISABLED", "true")  # no machine to ask for credentials here


# `python -m moto.server` that ends with its parent, however that ends: its standard input is then at its end.
S3_SERVER = """
import os, runpy, sys, threading
threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
runpy.run_module("moto.server", run_name="__main__")
"""


@pytest.fixture(autouse=True)
def one_torch_thread() -> None:
    """Keep torch on one thread, in the tests that use it: its results then do not hang on the machine's cores."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.get_num_threads() != 1:
        torch.set_num_threads(1)


def free_port() -> int:
    """Return a loopback port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start_s3(port: int) -> subprocess.Popen[bytes]:
    """Start an S3 server on this loopback port and return when it answers."""
    command = [sys.executable, "-c", S3_SERVER, "-H", "127.0.0.1", "-p", str(port)]
    quiet = subprocess.DEVNULL
    server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=quiet, stderr=quiet)
    give_up = time.monotonic() + 60
    while True:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/moto-api/", timeout=1).close()
            return server
        except OSError:
            if server.poll() is not None or time.monotonic() > give_up:
                server.kill()
                raise
            time.sleep(0.05)


@pytest.fixture(scope="session")
def s3() -> Iterator[str]:
    """Run a real S3 server for the session, point AWS_* at it, and yield `s3://` and its bucket."""
    import boto3

    port = free_port()
    server = start_s3(port)
    settings = {
        "AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in settings.items():
            patch.setenv(name, value)
        patch.delenv("AWS_PROFILE", raising=False)
        bucket = f"alray-{uuid.uuid4().hex[:8]}"
        boto3.session.Session().client("s3", endpoint_url=settings["AWS_ENDPOINT_URL_S3"]).create_bucket(Bucket=bucket)
        yield f"s3://{bucket}"
    server.terminate()
    server.wait()


@pytest.fixture(scope="session")
def ray_runtime(s3: str) -> Iterator[Runtime]:
    """Run a local Ray with two workers for the session; its workers inherit the S3 server's address."""
    from alray.runtime import RuntimeConfig, open_runtime

    with open_runtime(RuntimeConfig(name="ray", workers=2)) as runtime:
        yield runtime
