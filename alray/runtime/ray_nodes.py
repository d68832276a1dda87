"""Machines that are about to leave the cluster: Ray knows their notice (a spot machine's, an operator's drain)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ray


def on_leaving_nodes(actors: Sequence[Any]) -> list[int]:
    """Return the positions of the actors that live on nodes which are being drained."""
    leaving = ray._private.state.state.get_draining_nodes()
    if not leaving:
        return []
    return [i for i, actor in enumerate(actors) if _node(actor) in leaving]


def _node(actor: Any) -> str:
    found: str = ray._private.state.actors(actor._actor_id.hex()).get("Address", {}).get("NodeID", "")
    return found
