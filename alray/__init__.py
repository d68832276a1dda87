"""alray: which pictures to pay to label next, and what that buys.

The names below are the public ones. Each is imported when it is first used, so that `import alray` is quick and loads
neither Ray nor torchvision.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from alray.campaign.campaign import run as run
    from alray.campaign.settings import Settings as Settings
    from alray.campaign.status import Status as Status
    from alray.campaign.status import status as status
    from alray.cli.settings import load as load
    from alray.errors import AlrayError as AlrayError
    from alray.errors import ConfigError as ConfigError
    from alray.errors import UserError as UserError
    from alray.labelling import Labeller as Labeller
    from alray.labelling import Labels as Labels
    from alray.models import Head as Head
    from alray.pool import Pool as Pool
    from alray.runtime import Runtime as Runtime
    from alray.runtime import RuntimeConfig as RuntimeConfig
    from alray.runtime import open_runtime as open_runtime
    from alray.selection import Picks as Picks
    from alray.selection import Selection as Selection
    from alray.selection.select import select as select
    from alray.strategies import Given as Given
    from alray.strategies import ScoreStrategy as ScoreStrategy
    from alray.strategies import Strategy as Strategy
    from alray.table import Table as Table

_HOME = {
    "AlrayError": "errors",
    "ConfigError": "errors",
    "Given": "strategies",
    "Head": "models",
    "Labeller": "labelling",
    "Labels": "labelling",
    "Picks": "selection",
    "Pool": "pool",
    "Runtime": "runtime",
    "RuntimeConfig": "runtime",
    "ScoreStrategy": "strategies",
    "Selection": "selection",
    "Settings": "campaign.settings",
    "Status": "campaign.status",
    "Strategy": "strategies",
    "Table": "table",
    "UserError": "errors",
    "load": "cli.settings",
    "open_runtime": "runtime",
    "run": "campaign.campaign",
    "select": "selection",
    "status": "campaign.status",
}
"""Where each public name lives."""

__all__ = [
    "AlrayError",
    "ConfigError",
    "Given",
    "Head",
    "Labeller",
    "Labels",
    "Picks",
    "Pool",
    "Runtime",
    "RuntimeConfig",
    "ScoreStrategy",
    "Selection",
    "Settings",
    "Status",
    "Strategy",
    "Table",
    "UserError",
    "load",
    "open_runtime",
    "run",
    "select",
    "status",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'alray' has no attribute {name!r}")
    found = globals()[name] = getattr(importlib.import_module(f"alray.{_HOME[name]}"), name)
    return found


def __dir__() -> list[str]:
    return __all__
