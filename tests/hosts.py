"""Several hosts on one machine: network namespaces on a bridge, with Ray and an S3 server inside, and links to cut.

The bridge stands in a namespace of its own too, so that nothing of the machine's own network is touched. Processes and
files are the machine's: what runs on a host can be watched and stopped from outside.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from driving import command

DEPLOY = Path(__file__).parents[1] / "deploy"
NETWORK = "10.77.0"
PORT = 6379
S3_PORT = 9000
STARTS_S = 150.0
POLL_S = 0.02
RAY = [sys.executable, "-m", "ray.scripts.scripts"]

# Ends everything when its standard input ends: at the end of the block, or of this process, however that comes.
UNDERTAKER = """
cat >/dev/null
folder=$1
shift
for name in "$@"; do
    for again in $(seq 100); do
        left=$(ip netns pids "$name" 2>/dev/null)
        [ "$left" ] || break
        kill -9 $left 2>/dev/null
        sleep 0.1
    done
    ip netns del "$name" 2>/dev/null
done
rm -rf "$folder"
"""

PUT = """
import os, sys, urllib.request
from pathlib import Path
from alray import storage
folder, uri = Path(sys.argv[1]), sys.argv[2]
bucket = uri.removeprefix("s3://").partition("/")[0]
create = urllib.request.Request(os.environ["AWS_ENDPOINT_URL_S3"] + "/" + bucket, method="PUT")
urllib.request.urlopen(create, timeout=30).close()
for file in folder.iterdir():
    storage.write_bytes(f"{uri}/{file.name}", file.read_bytes())
"""

GET = """
import sys
from pathlib import Path
from alray import storage

def get(uri, folder):
    folder.mkdir(parents=True)
    for file in storage.list_files(uri):
        (folder / file.rpartition("/")[2]).write_bytes(storage.read_bytes(file))
    for below in storage.list_folders(uri):
        get(below, folder / below.rpartition("/")[2])

get(sys.argv[1], Path(sys.argv[2]))
"""


class Host:
    """A network namespace with one address, its link to the bridge, and an environment for what runs there."""

    def __init__(self, number: int, prefix: str, folder: Path, environment: dict[str, str]) -> None:
        self.name, self.switch, self.folder = f"{prefix}-{number}", f"{prefix}-switch", folder
        self.address, self.environment = f"{NETWORK}.{10 + number}", environment
        self._port = f"port{number}"
        self._log = folder / f"host-{number}.log"
        self._started: list[subprocess.Popen[bytes]] = []
        _ip("netns", "add", self.name)
        ends = ["link", "add", "eth0", "netns", self.name, "type", "veth", "peer", "name", self._port]
        _ip(*ends, "netns", self.switch)
        _ip("-n", self.switch, "link", "set", self._port, "master", "bridge", "up")
        _ip("-n", self.name, "link", "set", "lo", "up")
        _ip("-n", self.name, "address", "add", f"{self.address}/24", "dev", "eth0")
        _ip("-n", self.name, "link", "set", "eth0", "up")
        _ip("-n", self.name, "route", "add", "default", "via", f"{NETWORK}.1")  # Ray looks there for its own address

    def start(self, words: list[str], log: Path | None = None, **changes: str | None) -> subprocess.Popen[bytes]:
        """Start a command on this host, with changes to its environment; None takes a variable out."""
        environment = {k: v for k, v in (self.environment | changes).items() if v is not None}
        with (log or self._log).open("ab") as out:
            inside = ["ip", "netns", "exec", self.name, *words]
            process = subprocess.Popen(inside, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=environment)
        self._started.append(process)
        return process

    def run(self, words: list[str], log: Path | None = None, **changes: str | None) -> None:
        """Run a command on this host, which must end well."""
        code = self.start(words, log, **changes).wait(STARTS_S)
        assert code == 0, (log or self._log).read_text()

    def processes(self, name: str = "") -> list[int]:
        """Return the processes on this host in whose command line `name` is."""
        return [pid for pid in map(int, _ip("netns", "pids", self.name).split()) if name in command(pid)]

    def cut(self) -> None:
        """Take the link away without a word to either side: what is sent is lost."""
        _ip("-n", self.switch, "link", "set", self._port, "down")

    def mend(self) -> None:
        """Put the link back."""
        _ip("-n", self.switch, "link", "set", self._port, "up")

    def end(self) -> None:
        """End whatever runs here, as switching a machine off does."""
        while left := self.processes():
            for pid in left:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            time.sleep(POLL_S)
        self.wait()

    def wait(self) -> None:
        """Return when all that was started here has ended."""
        for process in self._started:
            process.wait(STARTS_S)

    def ray(self, *words: str) -> None:
        """Start Ray's processes here; returns before they are there."""
        own = [f"--node-ip-address={self.address}", f"--temp-dir={self.folder}/{self.name[-1]}"]
        size = ["--object-store-memory=100000000", "--disable-usage-stats", "--block"]
        self.start([*RAY, "start", *own, *size, *words])

    def until_ray(self, times: int = 1) -> None:
        """Return once `ray` has come up for the so-manieth time."""
        until(lambda: self._log.read_text().count("Ray runtime started") >= times, self._log.read_text)

    def serve_s3(self) -> Path:
        """Start an S3 server here; return its log, which has a line for each request."""
        log = self.folder / "s3.log"
        self.start([sys.executable, "-m", "moto.server", "-H", self.address, "-p", str(S3_PORT)], log)
        until(lambda: "Running on" in log.read_text(), log.read_text)
        return log

    def put(self, folder: Path, uri: str) -> None:
        """Copy a folder's files to a bucket, which is made."""
        self.run([sys.executable, "-c", PUT, str(folder), uri])

    def get(self, uri: str, folder: Path) -> None:
        """Copy what is below `uri` to a folder that is not there yet."""
        self.run([sys.executable, "-c", GET, uri, str(folder)])


def until(moment: Callable[[], bool], about: Callable[[], str], living: subprocess.Popen[bytes] | None = None) -> None:
    """Return as soon as `moment()` holds, which must be while the process `living` lives."""
    give_up = time.monotonic() + STARTS_S
    while not moment():
        assert living is None or living.poll() is None, f"it ended before: {about()}"
        assert time.monotonic() < give_up, f"it never came: {about()}"
        time.sleep(POLL_S)


def shipped(home: Path) -> dict[str, str]:
    """Return what deploy/ray.env exports for a user of this home."""
    said = subprocess.run(
        ["sh", "-c", '. "$0" && env -0', str(DEPLOY / "ray.env")],
        env={"HOME": str(home), "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=True,
    )
    return {k: v for k, _, v in (one.partition("=") for one in said.stdout.split("\0")) if k.startswith("RAY_")}


def refused() -> str | None:
    """Return why this machine lets no namespaces be made; None if it does."""
    if not shutil.which("ip"):
        return "there is no `ip` command (iproute2)"
    if os.geteuid() != 0:
        return "network namespaces need root"
    name = f"alray-{os.getpid()}-try"
    try:
        _ip("netns", "add", name)
        try:
            _ip("-n", name, "link", "add", "bridge", "type", "bridge")
            _ip("-n", name, "link", "add", "here", "type", "veth", "peer", "name", "there")
        finally:
            _ip("netns", "del", name)
    except subprocess.CalledProcessError as error:
        return f"`{' '.join(error.cmd)}` is refused: {error.stderr.strip()}"
    return None


@contextmanager
def hosts(count: int, **changes: str) -> Iterator[list[Host]]:
    """Make hosts that see each other, with one token and the settings that alray ships; nothing outlives the block.

    The last one is where S3 is looked for. `changes` are made to the environment of all.
    """
    folder = Path(tempfile.mkdtemp(prefix="alray-"))  # not pytest's own, which is too long for the names of sockets
    prefix = f"alray-{os.getpid()}"
    names = [f"{prefix}-{end}" for end in [*range(count), "switch"]]
    end = ["sh", "-c", UNDERTAKER, "sh", str(folder), *names]
    undertaker = subprocess.Popen(end, stdin=subprocess.PIPE, start_new_session=True)
    found: list[Host] = []
    try:
        _ip("netns", "add", f"{prefix}-switch")
        _ip("-n", f"{prefix}-switch", "link", "add", "bridge", "type", "bridge")
        _ip("-n", f"{prefix}-switch", "address", "add", f"{NETWORK}.1/24", "dev", "bridge")
        _ip("-n", f"{prefix}-switch", "link", "set", "bridge", "up")
        environment = _environment(folder, s3=f"http://{NETWORK}.{10 + count - 1}:{S3_PORT}") | changes
        for number in range(count):
            found.append(Host(number, prefix, folder, environment))
        yield found
    finally:
        assert undertaker.stdin
        undertaker.stdin.close()
        undertaker.wait(STARTS_S)
        for host in found:
            host.wait()


def _environment(home: Path, s3: str) -> dict[str, str]:
    settings = shipped(home)
    token = Path(settings["RAY_AUTH_TOKEN_PATH"])
    token.parent.mkdir(mode=0o700)
    token.touch(mode=0o600)
    token.write_text(secrets.token_hex(32))
    mine = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "AWS_"))}
    keys = {name: "test" for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")}
    place = {"AWS_ENDPOINT_URL_S3": s3, "AWS_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true"}
    return mine | settings | keys | place | {"HOME": str(home), "OMP_NUM_THREADS": "1"}


def _ip(*words: str) -> str:
    return subprocess.run(["ip", *words], check=True, capture_output=True, text=True).stdout
