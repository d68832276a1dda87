"""Containers as a pod template describes them, without Kubernetes: a network, processes and a file system of their own.

The root file system is this machine's, read-only; what is mounted is what the template mounts; the user, the
environment and the missing capabilities are the template's. It takes root, and util-linux and iproute2.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from deploy.kustomization import Manifest, find

TOOLS = ("ip", "unshare", "setpriv", "mount")
BIN = Path(sys.prefix) / "bin"
"""Stands for /opt/alray/bin of the image."""


def missing() -> str | None:
    """Return why no pod can be made here, or None."""
    if os.name != "posix" or os.geteuid():
        return "pods of namespaces need root"
    if absent := [tool for tool in TOOLS if shutil.which(tool) is None]:
        return f"pods of namespaces need {', '.join(absent)}"
    if subprocess.run(["unshare", "--mount", "--pid", "--fork", "true"], capture_output=True).returncode:
        return "this machine lets nobody make namespaces"
    return None


class Network:
    """A bridge in a namespace of its own, on which each pod has an address: 10.88.0.2, 10.88.0.3, …"""

    def __init__(self) -> None:
        self._prefix = f"alr{os.getpid() % 10_000}"
        self._count = 1
        self._made: list[str] = []

    def __enter__(self) -> Network:
        bridge = self._namespace("sw")
        _ip("-n", bridge, "link", "add", "br0", "type", "bridge")
        _ip("-n", bridge, "link", "set", "br0", "up")
        return self

    def __exit__(self, *error: object) -> None:
        for name in self._made:
            _ip("netns", "del", name)

    def join(self) -> tuple[str, str]:
        """Return the network namespace of a new pod, and its address."""
        self._count += 1
        number, bridge = self._count, self._made[0]
        name, outer, inner = self._namespace(str(number)), f"v{number}s", f"v{number}p"
        _ip("link", "add", inner, "netns", name, "type", "veth", "peer", "name", outer, "netns", bridge)
        _ip("-n", bridge, "link", "set", outer, "master", "br0", "up")
        _ip("-n", name, "addr", "add", f"10.88.0.{number}/24", "dev", inner)
        for device in (inner, "lo"):
            _ip("-n", name, "link", "set", device, "up")
        return name, f"10.88.0.{number}"

    def _namespace(self, name: str) -> str:
        full = f"{self._prefix}-{name}"
        _ip("netns", "add", full)
        self._made.append(full)
        return full


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


@dataclass
class Pod:
    """One pod of a template. `volumes` are the folders that stand for its claims, by the claim's name."""

    spec: Manifest
    manifests: list[Manifest]
    claims: dict[str, Path]
    network: Network
    scratch: Path
    environment: dict[str, str] = field(default_factory=dict)
    address: str = field(init=False)
    running: list[subprocess.Popen[bytes]] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        self._namespace, self.address = self.network.join()
        self.scratch.mkdir()
        for folder in ("etc", "empty"):
            (self.scratch / folder).mkdir()
        shutil.copytree("/etc", self.scratch / "etc", symlinks=True, dirs_exist_ok=True)
        self._folders = {one["name"]: self._volume(one) for one in self.spec["volumes"]}

    def start(self, container: Manifest, command: str, log: Path) -> subprocess.Popen[bytes]:
        """Start a shell command in a container; it ends with all its children when the returned process is killed."""
        script = self.scratch / f"{len(self.running)}.sh"
        script.write_text(self._script(container, command))
        unshare = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--uts", "--ipc"]
        words = [
            "setpriv",
            "--pdeathsig",
            "KILL",
            "ip",
            "netns",
            "exec",
            self._namespace,
            *unshare,
            "bash",
            str(script),
        ]
        with log.open("ab") as out:
            process = subprocess.Popen(words, stdout=out, stderr=out, stdin=subprocess.DEVNULL)
        self.running.append(process)
        return process

    def run(self, container: Manifest, command: str, log: Path, timeout: float = 120) -> int:
        """Run a shell command in a container to its end; return its exit code."""
        return self.start(container, command, log).wait(timeout)

    def kill(self) -> None:
        """End everything in the pod at once, as a machine that vanishes does."""
        for process in self.running:
            process.kill()
            process.wait()

    def _volume(self, volume: Manifest) -> Path | None:
        """Return the folder that stands for a volume; None for an empty one."""
        if claim := volume.get("persistentVolumeClaim"):
            return self.claims[claim["claimName"]]
        sources = [
            one["configMap"]["name"] for one in volume.get("projected", {}).get("sources", []) if "configMap" in one
        ]
        folder = self.scratch / volume["name"]
        folder.mkdir()
        for name in sources:
            if name.startswith("alray-"):
                for file, text in find(self.manifests, "ConfigMap", name)["data"].items():
                    (folder / file).write_text(text)
        return folder if sources else None

    def _script(self, container: Manifest, command: str) -> str:
        user = {**self.spec["securityContext"], **container.get("securityContext", {})}
        assert user["readOnlyRootFilesystem"] and user["capabilities"] == {"drop": ["ALL"]}
        etc = shlex.quote(str(self.scratch / "etc"))
        lines = ["set -e", "mount --make-rprivate /"]
        sources = {}
        for mount in container["volumeMounts"]:
            folder = self._folders[mount["name"]]
            if folder is not None:  # held by a descriptor's path, since /tmp is about to be hidden
                sources[mount["mountPath"]] = (folder, mount.get("readOnly", False))
        stage = self.scratch / "empty"
        lines += [f"mount -t tmpfs tmpfs {stage}"]
        for number, (folder, _) in enumerate(sources.values()):
            lines += [f"mkdir {stage}/{number}", f"mount --bind {shlex.quote(str(folder))} {stage}/{number}"]
        lines += [f"mkdir -p {etc}/alray", f"mount --bind {etc} /etc", "mount -t tmpfs tmpfs /mnt", "mkdir /mnt/alray"]
        lines += ["mkdir /mnt/stage", f"mount --rbind {stage} /mnt/stage"]
        if Path(sys.base_prefix).is_relative_to("/root"):  # an interpreter there is shown to the pod's user
            lines += ["mkdir /mnt/stage/python", f"mount --bind {sys.base_prefix} /mnt/stage/python"]
            lines += ["mount -t tmpfs -o mode=755 tmpfs /root", f"mkdir -p {sys.base_prefix}"]
            lines += [f"mount --bind /mnt/stage/python {sys.base_prefix}", "mount -o remount,bind,ro /root"]
        for mount in sorted(container["volumeMounts"], key=lambda one: one["mountPath"]):
            at = mount["mountPath"]
            if at in sources:
                number = list(sources).index(at)
                lines += [f"mount --bind /mnt/stage/{number} {at}"]
                lines += [f"mount -o remount,bind,ro {at}"] if sources[at][1] else []
            else:
                lines += [f"mkdir -p {at}", f"mount -t tmpfs -o mode=1777 tmpfs {at}"]
        lines += ["mount -t proc proc /proc", "mount -o remount,bind,ro /etc", "mount --bind / /", "hostname pod"]
        lines += ["umount -l /mnt/stage", "mount -o remount,bind,ro /mnt", "cd /", "mount -o remount,bind,ro /"]
        environment = {"PATH": f"{BIN}:/usr/bin:/bin", "HOME": "/home/alray", "PYTHONUNBUFFERED": "1"}
        environment |= {"PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"} | self.environment
        environment |= {one["name"]: one["value"] for one in container.get("env", []) if "value" in one}
        words = [f"{name}={value}" for name, value in environment.items()]
        drop = ["setpriv", f"--reuid={user['runAsUser']}", f"--regid={user['runAsGroup']}", "--clear-groups"]
        drop += ["--bounding-set=-all", "--inh-caps=-all", "--no-new-privs"]
        # Not `exec`: what changes its user would no longer end with its parent, and with the pod.
        lines.append(shlex.join(["env", "-i", *words, *drop, "bash", "-c", command]))
        return "\n".join(lines) + "\n"
