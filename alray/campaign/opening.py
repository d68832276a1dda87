"""Open a run folder: a new one is given its name and settings, an old one refuses settings that would change it.

What a round's files mean depends on pool, seed, classes and features, so these are fixed for the life of a run; what
only decides how to go on may change between two commands, and each version is kept (decision 13).
"""

from __future__ import annotations

import hashlib
import time
import uuid
from dataclasses import dataclass
from typing import Any

import yaml

from alray import config as configs
from alray import storage
from alray.campaign.ledger import Ledger
from alray.campaign.settings import Settings
from alray.errors import AlrayError, ConfigError, LedgerError, RunError
from alray.runtime import in_job

LIVE = frozenset(
    {"budget", "costs", "forecast", "labeller", "runtime", "selection", "stopping", "storage", "strategy", "switch"}
)
"""Settings that may change between two commands. All others, but for `run` itself, are frozen."""

HOW = frozenset({"run", "runtime", "storage"})
"""Settings that say where and how work is run, and not what it is: like `features.path`, no part of the config hash."""


@dataclass(frozen=True)
class Opened:
    """The settings in force: the file that has them, and their hash."""

    file: str
    digest: str


def home(run: str) -> str:
    """Return the run folder as a URI that means the same in every process."""
    local = storage.local_path(run)
    return run.rstrip("/") if local is None else str(local)


def refuse_fleeting(settings: Settings) -> None:
    """Raise ConfigError if a Ray job would write into its working folder: a copy, which goes with the cluster."""
    if not in_job():
        return
    pretrain = settings.pretrain.path if settings.pretrain else None
    places = {"run": settings.run, "features.path": settings.features.path, "pretrain.path": pretrain}
    fleeting = {name: path for name, path in places.items() if path is not None and storage.is_relative(path)}
    if fleeting:
        named = ", ".join(f"`{name}` ({path!r})" for name, path in fleeting.items())
        raise ConfigError(
            f"{named}: relative, and this is a Ray job, whose working folder is a copy that no other machine sees and "
            "that goes with the cluster: what was paid for would be lost. Give absolute paths on a disk that all "
            "machines share, or s3://."
        )


def digest(settings: Settings) -> str:
    """Return the config hash: of all settings that say what is done, wherever it is done."""
    raw = {k: v for k, v in _plain(settings).items() if k not in HOW}
    for place in ("features", "pretrain"):
        if raw[place] is not None:
            del raw[place]["path"]
    return hashlib.sha256(yaml.safe_dump(raw, sort_keys=True).encode()).hexdigest()


def begin(ledger: Ledger, settings: Settings) -> Opened:
    """Begin or resume a run with these settings; keep them as a new version if live ones changed.

    Raises RunError, with the difference, if frozen settings changed. They are free until a pool has passed every check
    and its manifest is kept: what a command refused can be put right in the same folder.
    """
    if not ledger.has("run.json"):
        _refuse_foreign(ledger)
        ledger.commit_json("run.json", {"schema": 1, "name": uuid.uuid4().hex[:12], "created": time.time()})
    ledger.name()
    found = latest(ledger)
    if found is None:
        ledger.commit("config.yaml", configs.dump(settings).encode())
        return Opened("config.yaml", digest(settings))
    file, before = found
    changed = _difference(_plain(before), _plain(settings))
    frozen = {path: pair for path, pair in changed.items() if path.split(".")[0] not in LIVE | {"run"}}
    if frozen and ledger.files("pool"):
        raise RunError(_refusal(ledger, frozen))
    if any(path.split(".")[0] != "run" for path in changed):
        file = f"configs/{_version(file) + 1:04d}.yaml"
        ledger.commit(file, configs.dump(settings).encode())
    return Opened(file, digest(settings))


def latest(ledger: Ledger) -> tuple[str, Settings] | None:
    """Return the newest settings of a run and the file they are in; None when it has none yet."""
    if not ledger.has("config.yaml"):
        return None
    file = max(ledger.files("configs"), default="config.yaml")
    try:
        raw = configs.load_yaml(storage.read_text(ledger.uri(file)))
        return file, configs.parse(raw, Settings, source=ledger.uri(file))
    except (yaml.YAMLError, AttributeError, TypeError, AlrayError) as e:
        raise LedgerError(
            f"{ledger.uri(file)} is not readable as settings that alray wrote ({e}). Nothing was overwritten: "
            "restore this file from a copy, or start a new run."
        ) from e


def _version(file: str) -> int:
    return 1 if file == "config.yaml" else int(file.removeprefix("configs/").removesuffix(".yaml"))


def _refuse_foreign(ledger: Ledger) -> None:
    """A folder with rounds and no run.json has lost its beginning."""
    if ledger.has("config.yaml") or ledger.files("asks"):
        raise LedgerError(f"{ledger.run} has a campaign but no run.json. Restore that file, or start a new run.")


def _plain(settings: Settings) -> dict[str, Any]:
    return settings.model_dump(mode="json")


def _difference(before: Any, after: Any, path: str = "") -> dict[str, tuple[Any, Any]]:
    """Return dotted path → (before, after) of every setting that differs."""
    if isinstance(before, dict) and isinstance(after, dict):
        if before.get("name") != after.get("name"):  # another member of a family: none of its fields are the same
            return {f"{path}.name": (before.get("name"), after.get("name"))}
        out: dict[str, tuple[Any, Any]] = {}
        for key in {**before, **after}:
            out |= _difference(before.get(key), after.get(key), f"{path}.{key}".lstrip("."))
        return out
    return {} if before == after else {path: (before, after)}


def _refusal(ledger: Ledger, frozen: dict[str, tuple[Any, Any]]) -> str:
    lines = [f"  `{path}`: was {before!r}, is now {after!r}" for path, (before, after) in frozen.items()]
    return "\n".join(
        [
            f"The run {ledger.run} was begun with other settings, which cannot change within a run:",
            *lines,
            f"Set them back, or name a new folder in `run`. What may change: {', '.join(sorted(LIVE))}.",
        ]
    )
