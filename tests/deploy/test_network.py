"""Who reaches whom: the NetworkPolicies, asked as the network would ask them."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import Any

import pytest
from deploy.conftest import OVERLAYS, Rendered
from deploy.kustomization import Manifest
from deploy.test_agreement import cluster_of, pods

OTHER = {"namespace": "elsewhere", "labels": {"app": "other"}}
SAME = {"namespace": "alray", "labels": {"app": "other"}}
OPERATOR = {"namespace": "kuberay-system", "labels": {"app.kubernetes.io/component": "kuberay-operator"}}
BESIDE_OPERATOR = {"namespace": "kuberay-system", "labels": {"app": "other"}}
PROMETHEUS = {"namespace": "monitoring", "labels": {"app": "prometheus"}}
NAMES = {"namespace": "kube-system", "labels": {"k8s-app": "kube-dns"}}
BUCKET, METADATA, API_SERVER = {"ip": "52.218.1.1"}, {"ip": "169.254.169.254"}, {"ip": "10.96.0.1"}
PORTS = {"gcs-server": 6379, "dashboard": 8265, "client": 10001, "metrics": 8080}

Peer = dict[str, Any]


def part(name: str, rendered: list[Manifest]) -> Peer:
    return {"namespace": "alray", "labels": pods(rendered)[name]["metadata"]["labels"]}


def reaches(policies: list[Manifest], source: Peer, target: Peer, port: int, protocol: str = "TCP") -> bool:
    """Say whether a packet passes: every policy that selects a pod closes it, any rule of any of them opens it."""
    return passes(policies, "Egress", source, target, port, protocol) and passes(
        policies, "Ingress", target, source, port, protocol
    )


def passes(policies: list[Manifest], way: str, pod: Peer, peer: Peer, port: int, protocol: str) -> bool:
    if pod.get("namespace") != "alray":
        return True  # not ours to close
    chosen = [p["spec"] for p in policies if way in p["spec"]["policyTypes"] and selects(p["spec"]["podSelector"], pod)]
    rules = [rule for spec in chosen for rule in spec.get(way.lower(), [])]
    return not chosen or any(opens(rule, way, peer, port, protocol) for rule in rules)


def opens(rule: dict[str, Any], way: str, peer: Peer, port: int, protocol: str) -> bool:
    ports = [(one["protocol"], one["port"]) for one in rule.get("ports", [])]
    peers = rule["to" if way == "Egress" else "from"]
    return (not ports or (protocol, port) in ports) and any(is_peer(one, peer) for one in peers)


def is_peer(told: dict[str, Any], peer: Peer) -> bool:
    if "ipBlock" in told:
        block = told["ipBlock"]
        address = ip_address(peer.get("ip", "10.244.0.9"))
        outside = any(address in ip_network(one) for one in block.get("except", []))
        return address in ip_network(block["cidr"]) and not outside
    if "ip" in peer:
        return False
    namespaces = told.get("namespaceSelector")
    if namespaces is None:
        right = peer["namespace"] == "alray"
    else:
        right = namespaces["matchLabels"] == {"kubernetes.io/metadata.name": peer["namespace"]}
    return right and selects(told.get("podSelector", {}), peer)


def selects(selector: dict[str, Any], pod: Peer) -> bool:
    labels = pod["labels"]
    wanted = selector.get("matchLabels", {})
    for one in selector.get("matchExpressions", []):
        if (labels.get(one["key"]) in one["values"]) != (one["operator"] == "In"):
            return False
    return bool(wanted.items() <= labels.items())


@pytest.fixture(params=OVERLAYS)
def overlay(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def manifests(overlay: str, rendered: Rendered) -> list[Manifest]:
    return rendered(overlay)


@pytest.fixture
def policies(manifests: list[Manifest]) -> list[Manifest]:
    return [one for one in manifests if one["kind"] == "NetworkPolicy"]


def test_the_head_has_these_ports(manifests: list[Manifest]) -> None:
    (head,) = cluster_of(manifests)["headGroupSpec"]["template"]["spec"]["containers"]
    assert {one["name"]: one["containerPort"] for one in head["ports"]} == PORTS


def test_nobody_from_outside_reaches_a_node(policies: list[Manifest], manifests: list[Manifest]) -> None:
    for node in (part("head", manifests), part("worker", manifests)):
        for stranger in (OTHER, SAME, BESIDE_OPERATOR):
            assert not [port for port in (*PORTS.values(), 22, 52365) if reaches(policies, stranger, node, port)]


def test_nodes_reach_each_other_on_every_port(policies: list[Manifest], manifests: list[Manifest]) -> None:
    head, worker = part("head", manifests), part("worker", manifests)
    for port in (*PORTS.values(), 10002, 19999, 33333):
        assert all(reaches(policies, a, b, port) for a in (head, worker) for b in (head, worker))


def test_submitter_and_operator_reach_the_job_api_alone(
    overlay: str, policies: list[Manifest], manifests: list[Manifest]
) -> None:
    head = part("head", manifests)
    others = [OPERATOR] if overlay == "cluster" else [OPERATOR, part("submitter", manifests)]
    for one in others:
        assert [port for port in (*PORTS.values(), 44217) if reaches(policies, one, head, port)] == [8265]


def test_prometheus_reaches_metrics_alone(policies: list[Manifest], manifests: list[Manifest]) -> None:
    head = part("head", manifests)
    reached = [port for port in (*PORTS.values(), 44217, 44227) if reaches(policies, PROMETHEUS, head, port)]
    assert reached == [8080, 44217, 44227]


def test_everybody_finds_names(policies: list[Manifest], manifests: list[Manifest]) -> None:
    for name in pods(manifests):
        assert reaches(policies, part(name, manifests), NAMES, 53, "UDP")
        assert reaches(policies, part(name, manifests), {"ip": "169.254.20.10"}, 53, "UDP")
        assert not reaches(policies, part(name, manifests), NAMES, 8080)


def test_head_and_cronjob_reach_the_api_server(
    overlay: str, policies: list[Manifest], manifests: list[Manifest]
) -> None:
    can = {name for name in pods(manifests) if reaches(policies, part(name, manifests), API_SERVER, 6443)}
    assert can == ({"head"} if overlay == "cluster" else {"head", "resubmit"})


def test_workers_reach_object_storage_only_where_it_is_used(
    overlay: str, policies: list[Manifest], manifests: list[Manifest]
) -> None:
    assert reaches(policies, part("worker", manifests), BUCKET, 443) is (overlay == "s3")
    if overlay != "cluster":
        assert not reaches(policies, part("submitter", manifests), BUCKET, 443)


def test_nobody_reaches_the_metadata_server(policies: list[Manifest], manifests: list[Manifest]) -> None:
    reached = [
        n for n in pods(manifests) for port in (80, 443) if reaches(policies, part(n, manifests), METADATA, port)
    ]
    assert not reached
