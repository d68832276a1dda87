"""The CronJob's script against an API server on loopback: HTTPS, a token, RayJobs listed and created."""

from __future__ import annotations

import datetime
import ipaddress
import json
import ssl
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from deploy.conftest import Rendered, parsed
from deploy.kustomization import find

from alray.cli import status

TOKEN, NAMESPACE = "a-token-of-the-account", "alray"
URL = f"/apis/ray.io/v1/namespaces/{NAMESPACE}/rayjobs"
RUN = "/mnt/alray/runs/digits"


class Cluster(ThreadingHTTPServer):
    """Answers as an API server does: 401 without the token, 409 for a name that is taken, 404 elsewhere."""

    def __init__(self, certificate: Path) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.jobs: list[dict[str, Any]] = []
        self.hidden: set[str] = set()  # names that are taken, and not yet listed
        self.asked: list[str] = []
        self.refused: int | None = None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        self.socket = context.wrap_socket(self.socket, server_side=True)

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that refuses the certificate is one of the tests."""


class Answers(BaseHTTPRequestHandler):
    server: Cluster

    def do_GET(self) -> None:
        self._answer(200, {"kind": "RayJobList", "items": self.server.jobs})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if body["metadata"]["name"] in {job["metadata"]["name"] for job in self.server.jobs} | self.server.hidden:
            self._answer(409, {"reason": "AlreadyExists"})
            return
        self.server.jobs.append(body)
        self._answer(201, body)

    def _answer(self, code: int, body: dict[str, Any]) -> None:
        self.server.asked.append(self.command)
        if self.headers["Authorization"] != f"Bearer {TOKEN}":
            code, body = 401, {"reason": "Unauthorized"}
        elif self.server.refused:
            code, body = self.server.refused, {"message": "rayjobs.ray.io is forbidden"}
        elif self.path != URL:
            code, body = 404, {"reason": "NotFound"}
        self.send_response(code)
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    def log_message(self, format: str, *words: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a key and a certificate of 127.0.0.1, signed by itself, into one file."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([])
    now = datetime.datetime.now(datetime.UTC)
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    built = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    built = built.serial_number(1).not_valid_before(now).not_valid_after(now + datetime.timedelta(days=1))
    built = built.add_extension(address, critical=True)
    signed = built.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True).sign(
        key, hashes.SHA256()
    )
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain)
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    path.write_bytes(private + signed.public_bytes(pem))
    return path


@pytest.fixture
def cluster(certificate: Path) -> Iterator[Cluster]:
    server = Cluster(certificate)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def resubmit(
    script: Any, cluster: Cluster, certificate: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> ModuleType:
    """The script, told of the server and the account as in a pod; `alray status --ready` says 0."""
    module: ModuleType = script("resubmit")
    (tmp_path / "token").write_text(TOKEN + "\n")
    (tmp_path / "namespace").write_text(NAMESPACE)
    (tmp_path / "ca.crt").write_text(certificate.read_text().split("-----END PRIVATE KEY-----")[1])
    monkeypatch.setattr(module, "ACCOUNT", str(tmp_path))
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(cluster.server_port))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # nothing listens there
    say(monkeypatch, 0)
    return module


def say(monkeypatch: pytest.MonkeyPatch, code: int) -> list[list[str]]:
    """Let `alray status` end with this code; return the commands that are asked for."""
    commands: list[list[str]] = []

    def run(command: list[str]) -> subprocess.CompletedProcess[str]:
        commands.append(command)
        return subprocess.CompletedProcess(command, code)

    monkeypatch.setattr(subprocess, "run", run)
    return commands


@pytest.fixture
def template(rendered: Rendered) -> dict[str, Any]:
    """The job as it stands in the API server after `kubectl apply`, and has come to its end."""
    job = find(rendered("cpu"), "RayJob")
    job["metadata"]["annotations"]["kubectl.kubernetes.io/last-applied-configuration"] = "{}"
    job["metadata"] |= {"uid": "0b51", "resourceVersion": "77", "generation": 1}
    job["spec"]["jobId"] = "alray-x7k2p"
    return ended(job, "Complete")


def ended(job: dict[str, Any], state: str | None, name: str | None = None) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(json.dumps(job))
    found["metadata"]["name"] = name or found["metadata"]["name"]
    found["status"] = {} if state is None else {"jobDeploymentStatus": state}
    return found


def test_a_run_that_gets_further_is_submitted_again_as_it_was_asked_for(
    resubmit: ModuleType, cluster: Cluster, template: dict[str, Any], rendered: Rendered, capsys: Any
) -> None:
    cluster.jobs = [template]
    assert resubmit.main([RUN, "alray"]) == 0
    assert capsys.readouterr().out == "resubmit: alray-2 was submitted.\n"
    created, wanted = cluster.jobs[1], find(rendered("cpu"), "RayJob")
    assert created["spec"] == wanted["spec"]
    annotations = wanted["metadata"]["annotations"]
    assert created["metadata"] == {"name": "alray-2", "labels": {}, "annotations": annotations}
    assert (created["apiVersion"], created["kind"]) == ("ray.io/v1", "RayJob") and "status" not in created


def test_what_is_asked_of_alray(
    resubmit: ModuleType, cluster: Cluster, template: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.jobs = [template]
    commands = say(monkeypatch, 3)
    resubmit.main([RUN, "alray"])
    ((_, option, package, *words),) = commands
    assert (option, package) == ("-m", "alray")
    assert words[0] == "status" and parsed(words).items() >= {"run": RUN, "ready": True}.items()
    assert resubmit.NOT_READY == status.NOT_READY


@pytest.mark.parametrize(
    "state", [None, "", "Initializing", "Running", "Waiting", "Retrying", "Suspended", "Suspending"]
)
def test_nothing_is_asked_while_a_job_is_under_way(
    state: str | None, resubmit: ModuleType, cluster: Cluster, template: dict[str, Any], monkeypatch: Any, capsys: Any
) -> None:
    cluster.jobs = [template, ended(template, state, "alray-2")]
    commands = say(monkeypatch, 0)
    assert resubmit.main([RUN, "alray"]) == 0
    assert capsys.readouterr().out == "resubmit: alray-2 is under way.\n"
    assert len(cluster.jobs) == 2 and not commands


def test_a_run_that_waits_for_people_is_left_alone(
    resubmit: ModuleType, cluster: Cluster, template: dict[str, Any], monkeypatch: Any, capsys: Any
) -> None:
    cluster.jobs = [template]
    say(monkeypatch, 3)
    assert resubmit.main([RUN, "alray"]) == 0
    assert capsys.readouterr().out == f"resubmit: {RUN} would get no further.\n" and len(cluster.jobs) == 1


def test_a_run_that_cannot_be_read_is_told(
    resubmit: ModuleType, cluster: Cluster, template: dict[str, Any], monkeypatch: Any, capsys: Any
) -> None:
    cluster.jobs = [template]
    say(monkeypatch, 2)
    assert resubmit.main([RUN, "alray"]) == 1
    assert f"`alray status {RUN} --ready` ended with 2" in capsys.readouterr().err and len(cluster.jobs) == 1


def test_numbers_go_on_and_other_jobs_do_not_count(
    resubmit: ModuleType, cluster: Cluster, template: dict[str, Any], capsys: Any
) -> None:
    names = ["alray-2", "alray-10", "alray-other", "other-7", "alray-2-3", "alray-0"]
    cluster.jobs = [template, *(ended(template, "Complete", name) for name in names)]
    assert resubmit.main([RUN, "alray"]) == 0
    assert cluster.jobs[-1]["metadata"]["name"] == "alray-11"


def test_two_that_submit_at_once_submit_one_job(
    resubmit: ModuleType, cluster: Cluster, template: dict[str, Any], capsys: Any
) -> None:
    cluster.jobs, cluster.hidden = [template], {"alray-2"}
    assert resubmit.main([RUN, "alray"]) == 0
    assert capsys.readouterr().out == "resubmit: alray-2 was submitted by another.\n" and len(cluster.jobs) == 1


@pytest.mark.parametrize("last", ["Failed", "ValidationFailed"])
def test_after_three_failures_in_a_row_a_person_is_asked(
    last: str, resubmit: ModuleType, cluster: Cluster, template: dict[str, Any], capsys: Any
) -> None:
    failed = [ended(template, "Failed", f"alray-{n}") for n in (2, 3)]
    cluster.jobs = [template, *failed, ended(template, last, "alray-4")]
    assert resubmit.main([RUN, "alray"]) == 1
    said = capsys.readouterr().err
    assert "the last 3 jobs failed (alray-2 alray-3 alray-4)" in said and "kubectl describe rayjob" in said
    assert len(cluster.jobs) == 4
    cluster.jobs[2]["status"]["jobDeploymentStatus"] = "Complete"
    assert resubmit.main([RUN, "alray"]) == 0 and len(cluster.jobs) == 5


def test_under_kueue_the_new_job_waits_in_the_queue(resubmit: ModuleType, cluster: Cluster, rendered: Rendered) -> None:
    admitted = ended(find(rendered("kueue"), "RayJob"), "Complete")
    admitted["spec"]["suspend"] = False  # as Kueue leaves it
    cluster.jobs = [admitted]
    assert resubmit.main([RUN, "alray"]) == 0
    assert cluster.jobs[1]["spec"]["suspend"] is True
    assert cluster.jobs[1]["metadata"]["labels"] == {"kueue.x-k8s.io/queue-name": "alray"}


def test_a_job_that_is_gone_is_told(resubmit: ModuleType, cluster: Cluster, capsys: Any) -> None:
    assert resubmit.main([RUN, "alray"]) == 1
    assert "there is no RayJob alray to repeat. Apply it again, or suspend this CronJob." in capsys.readouterr().err


def test_a_name_that_kuberay_would_refuse_is_told(
    resubmit: ModuleType, cluster: Cluster, template: dict[str, Any], capsys: Any
) -> None:
    name = "a" * 46
    cluster.jobs = [ended(template, "Complete", name)]
    assert resubmit.main([RUN, name]) == 1
    assert "is longer than 47 characters" in capsys.readouterr().err and len(cluster.jobs) == 1


def test_what_the_api_server_refuses_is_told_with_its_words(
    resubmit: ModuleType, cluster: Cluster, capsys: Any
) -> None:
    cluster.refused = 403
    assert resubmit.main([RUN, "alray"]) == 1
    said = capsys.readouterr().err
    assert "answered 403" in said and "rayjobs.ray.io is forbidden" in said and TOKEN not in said


def test_the_token_goes_to_no_server_of_another_name(
    resubmit: ModuleType, cluster: Cluster, tmp_path: Path, capsys: Any
) -> None:
    import certifi

    (tmp_path / "ca.crt").write_text(Path(certifi.where()).read_text())
    assert resubmit.main([RUN, "alray"]) == 1
    assert "CERTIFICATE_VERIFY_FAILED" in capsys.readouterr().err and not cluster.asked


def test_a_server_that_is_not_there_is_told(
    resubmit: ModuleType, cluster: Cluster, monkeypatch: Any, capsys: Any
) -> None:
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "9")
    assert resubmit.main([RUN, "alray"]) == 1
    assert "the API server cannot be reached" in capsys.readouterr().err


def test_outside_a_cluster_it_says_what_is_missing(resubmit: ModuleType, monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    assert resubmit.main([RUN, "alray"]) == 1
    assert "KUBERNETES_SERVICE_HOST must be set, as in every pod" in capsys.readouterr().err


def test_an_address_of_six_bytes_is_written_in_brackets(resubmit: ModuleType, monkeypatch: Any) -> None:
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "fd00::1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    assert resubmit.server() == "https://[fd00::1]:443"


def test_it_stands_on_the_standard_library(resubmit: ModuleType) -> None:
    import ast
    import sys

    tree = ast.parse(Path(str(resubmit.__file__)).read_text())
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name.split(".")[0] for name in names} <= sys.stdlib_module_names
