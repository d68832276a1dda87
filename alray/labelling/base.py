"""A labeller answers asks: the campaign sends what the ledger intends, and collects what has been answered.

Both verbs are safe to repeat: a request is known by its `request_id`, so that an ask sent twice after a crash is one
ask, and an answer collected twice is one answer.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from alray.config import Config
from alray.labelling.labels import Labels


@dataclass(frozen=True)
class Ask:
    """One question about one row: a label for `id`, wanted in `round` for `purpose`, from annotator slot `replica`."""

    run: str  # the run's own stable name, never its path
    round: int
    id: str
    purpose: str = "train"
    replica: int = 0
    request_id: str = field(init=False)

    def __post_init__(self) -> None:
        key = "\x1f".join([self.run, str(self.round), self.id, self.purpose, str(self.replica)])
        object.__setattr__(self, "request_id", hashlib.blake2b(key.encode(), digest_size=16).hexdigest())


class Labeller(Config, ABC):
    """Who labels. A member of the family is one file; its fields are its settings."""

    name: str
    sources: ClassVar[tuple[str, ...]] = ()  # names of fields that hold a path, for `alray check`

    @abstractmethod
    def ask(self, asks: Sequence[Ask]) -> None:
        """Send these questions. Asking again with the same `request_id` changes nothing."""

    @abstractmethod
    def collect(self, asks: Sequence[Ask]) -> Labels:
        """Return the answers that exist by now, each with its `request_id`; asks without one are still outstanding."""

    def ready(self, asks: Sequence[Ask]) -> bool:
        """Say whether `collect` would answer all of these asks now, or any of them for a labeller that trickles."""
        return len(self.collect(asks)) > 0
