"""Shards resident on Ray actors: calls go to the actor that has the shard, and trees of merges to whoever is free."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import ray

from alray import gauges
from alray.errors import RuntimeFailure
from alray.log import within
from alray.runtime import memory
from alray.runtime.base import FAN_IN, Held, RuntimeConfig, rows_of
from alray.runtime.ray_calls import PART_LOST, Drive, Workers
from alray.runtime.ray_log import Told
from alray.runtime.ray_nodes import on_leaving_nodes
from alray.runtime.threads import one_thread

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Asked:
    """What a host is asked about a shard: to cut its chunks in parts, and whether the shard stays with it."""

    number: int
    spec: Any
    parts: int
    stays: bool


class Host:
    """An actor that keeps shards resident. It is built from nothing but a function's name, so that it can restart."""

    def __init__(self, load: Callable[[Any], Any]) -> None:
        self._load = load
        self._states: dict[int, Any] = {}

    def run(self, one: Asked, fn: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        with one_thread(), within(shard=one.number), memory.split(one.parts):
            return fn(self._state(one), *args)

    def run_part(self, one: Asked, fn: Callable[..., Any], args: tuple[Any, ...]) -> tuple[bool, Any]:
        """As `run`; the first result tells the driver that it worked, so that it need not fetch the second."""
        return True, self.run(one, fn, args)

    def merge_parts(self, merge: Callable[[list[Any]], Any], *parts: Any) -> tuple[bool, Any]:
        with one_thread():
            return True, merge(list(parts))

    def finish(self, finish: Callable[[Any], Any] | None, part: Any) -> Any:
        with one_thread():
            return finish(part) if finish else part

    def call(self, parts: int, fn: Callable[..., Any], args: tuple[Any, ...], *first: Any) -> Any:
        return call(parts, fn, args, *first)

    def _state(self, one: Asked) -> Any:
        if one.number in self._states:
            return self._states[one.number]
        state = self._load(one.spec)
        if one.stays:
            self._states[one.number] = state
        return state


def call(parts: int, fn: Callable[..., Any], args: tuple[Any, ...], *first: Any) -> Any:
    """Return `fn(*first, *args)`, on one thread, its chunks cut in this many parts."""
    with one_thread(), memory.split(parts):
        return fn(*first, *args)


class Hosts(Workers):
    """The actors that hold the shards: shard i lives on actor i modulo their number, until that actor is lost."""

    resident = True

    def __init__(self, load: Callable[[Any], Any], count: int, options: Callable[[], dict[str, Any]]) -> None:
        super().__init__(count)
        self._load, self._options = Told(load), options
        self.actors = [self._actor() for _ in range(count)]
        self.fresh = set(range(count))

    def replace(self, slot: int, calls: Sequence[Any]) -> None:
        """Put a fresh actor in a lost one's place; it loads its shards when they are next asked for."""
        ray.kill(self.actors[slot])  # it may be alive behind a cut link: then it must not hold the memory
        self.actors[slot] = self._actor()
        self.fresh.add(slot)

    def leaving(self) -> Sequence[int]:
        return on_leaving_nodes(self.actors)

    def close(self) -> None:
        for actor in self.actors:
            ray.kill(actor)
        self.actors, self.width = [], 0

    def _actor(self) -> Any:
        return ray.remote(Host).options(**self._options()).remote(self._load)


class RayHeld(Held):
    """Shards resident on actors. A call that another actor answers in an owner's stead leaves no shard there."""

    def __init__(
        self,
        config: RuntimeConfig,
        hosts: Hosts,
        specs: Sequence[Any],
        stage: str,
        let_go: Callable[[RayHeld], None],
    ) -> None:
        self._config, self._hosts, self._specs, self._stage, self._let_go = config, hosts, specs, stage, let_go

    @property
    def count(self) -> int:
        return len(self._specs)

    def map(self, fn: Callable[..., Any], *args: Any) -> list[Any]:
        shared, told = ray.put(args), Told(fn)

        def submit(i: int, slot: int, parts: int) -> Any:
            return self._hosts.actors[slot].run.remote(self._asked(i, slot, parts), told, shared)

        return self._over_shards().results(self.count, submit)

    def tasks(
        self, fn: Callable[..., Any], firsts: list[tuple[Any, ...]], args: tuple[Any, ...], stage: str
    ) -> list[Any]:
        """Run calls that need no shard on the actors that hold the shards."""
        shared, told = ray.put(args), Told(fn)

        def submit(i: int, slot: int, parts: int) -> Any:
            return self._hosts.actors[slot].call.remote(parts, told, shared, *firsts[i])

        return Drive(self._config, stage, self._hosts).results(len(firsts), submit)

    def reduce_groups(
        self,
        fn: Callable[..., Any],
        merge: Callable[[list[Any]], Any],
        groups: Sequence[Sequence[int]],
        *args: Any,
        finish: Callable[[Any], Any] | None = None,
    ) -> list[Any]:
        told = (Told(fn), Told(merge), groups, args, Told(finish) if finish else None)
        for attempt in itertools.count():
            try:
                return self._grow(*told)
            except PART_LOST as error:
                if attempt >= self._config.max_restarts:
                    raise RuntimeFailure(f"{self._stage}: parts were lost {attempt + 1} times: {error}") from error
                log.warning("%s: a part was lost with its node; computing the parts again", self._stage)
        raise AssertionError

    def close(self) -> None:
        self._let_go(self)
        self._hosts.close()

    def _grow(
        self,
        fn: Callable[..., Any],
        merge: Callable[[list[Any]], Any],
        groups: Sequence[Sequence[int]],
        args: tuple[Any, ...],
        finish: Callable[[Any], Any] | None,
    ) -> list[Any]:
        """Grow all groups' trees level by level, so that workers are busy across groups."""
        shared = ray.put(args)

        def leaf(i: int, slot: int, parts: int) -> Any:
            run = self._hosts.actors[slot].run_part.options(num_returns=2)
            return run.remote(self._asked(i, slot, parts), fn, shared)

        leaves = self._over_shards().parts(self.count, leaf)
        trees = [[leaves[i] for i in group] for group in groups]
        while any(len(tree) > 1 for tree in trees):
            trees = self._level(trees, merge)
        return self._roots([tree[0] for tree in trees], finish)

    def _level(self, trees: list[list[Any]], merge: Callable[[list[Any]], Any]) -> list[list[Any]]:
        nodes = [(t, tree[i : i + FAN_IN]) for t, tree in enumerate(trees) for i in range(0, len(tree), FAN_IN)]

        def node(i: int, slot: int, parts: int) -> Any:
            return self._hosts.actors[slot].merge_parts.options(num_returns=2).remote(merge, *nodes[i][1])

        above: list[list[Any]] = [[] for _ in trees]
        for (t, _), part in zip(nodes, self._over_parts().parts(len(nodes), node), strict=True):
            above[t].append(part)
        return above

    def _roots(self, roots: list[Any], finish: Callable[[Any], Any] | None) -> list[Any]:
        def end(i: int, slot: int, parts: int) -> Any:
            return self._hosts.actors[slot].finish.remote(finish, roots[i])

        return self._over_parts().results(len(roots), end)

    def _asked(self, number: int, slot: int, parts: int) -> Asked:
        return Asked(number, self._specs[number], parts, stays=number % self._hosts.width == slot)

    def _over_shards(self) -> Drive:
        return Drive(self._config, self._stage, self._hosts, rows=self._rows, done=self._scanned)

    def _over_parts(self) -> Drive:
        return Drive(self._config, self._stage, self._hosts, of_parts=True)

    def _rows(self, number: int) -> int:
        return rows_of(self._specs[number])

    def _scanned(self, number: int) -> None:
        gauges.count("alray_rows_scanned", self._rows(number))
