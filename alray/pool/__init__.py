"""The pool: all that can be labelled, cut into shards by its data; pictures decoded or quarantined with a reason."""

from alray.pool.fetch import BadRow
from alray.pool.pool import Pool, PoolConfig
from alray.pool.quarantine import Quarantine
from alray.pool.shard import Shard

__all__ = ["BadRow", "Pool", "PoolConfig", "Quarantine", "Shard"]
