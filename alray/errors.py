"""Every error that alray raises on purpose.

    AlrayError                      exit code 1: ours, the machine's or the cluster's fault
    ├── UserError                   exit code 2: something the user can put right
    │   ├── ConfigError             a setting is missing, unknown or out of range
    │   ├── PoolError               the pool cannot be read as a pool (duplicate ids, no rows, mixed sizes)
    │   ├── QuarantineError         more rows are unreadable than `pool.max_quarantine` allows
    │   ├── LabelsError             a labels file does not fit its pool or its format
    │   ├── ModelError              a head or backbone cannot be loaded or does not fit
    │   ├── StrategyError           a strategy cannot run on what it is given
    │   ├── StoragePathError        a path or URI that alray does not read or write
    │   └── RunError                a run folder that cannot be used this way (locked, frozen settings)
    ├── StorageError                storage failed or refused, after retries
    ├── RuntimeFailure              work on a worker failed for good, or passed its deadline
    ├── TrainingError               a training run failed for good
    └── LedgerError                 the ledger contradicts itself; nothing is written on top of it

Each message says what happened with its values, what was expected, and what to do.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class AlrayError(Exception):
    """Base of every error that alray raises on purpose."""

    exit_code = 1


class UserError(AlrayError):
    """Something the user can put right: the message says how."""

    exit_code = 2


class ConfigError(UserError):
    """A setting is missing, unknown or out of range."""


class PoolError(UserError):
    """The pool cannot be read as a pool: a fault of its schema, not of one row."""


class QuarantineError(UserError):
    """More rows are unreadable than `pool.max_quarantine` allows."""


class LabelsError(UserError):
    """A labels file does not fit its format or its pool."""


class ModelError(UserError):
    """A head or a backbone cannot be loaded, or does not fit the features or classes."""


class StrategyError(UserError):
    """A strategy is unknown or cannot run on what it is given."""


class StoragePathError(UserError):
    """A path or URI that alray does not read or write."""


class RunError(UserError):
    """A run folder that cannot be used this way: locked by another driver, or its settings are frozen."""


class StorageError(AlrayError):
    """Storage failed or refused, after retries."""


class RuntimeFailure(AlrayError):
    """Work on a worker failed for good, or passed its deadline."""


class TrainingError(AlrayError):
    """A training run failed for good."""


class LedgerError(AlrayError):
    """The ledger contradicts itself; nothing is written on top of it."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Return `` Did you mean `x`?`` for the known name closest to `name`, or an empty string."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f" Did you mean `{close[0]}`?" if close else ""
