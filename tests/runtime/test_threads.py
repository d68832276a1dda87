"""One thread inside, what there was before outside, in every library that is loaded by then."""

from __future__ import annotations

import sys
import types

import pytest
import torch
from threadpoolctl import threadpool_info

from alray.runtime import one_thread, threads


def counts() -> list[int]:
    return [library["num_threads"] for library in threadpool_info()]


def test_one_thread_inside_and_as_before_outside() -> None:
    torch.set_num_threads(2)
    before = counts()
    assert before
    with one_thread():
        assert torch.get_num_threads() == 1
        assert set(counts()) == {1}
    assert torch.get_num_threads() == 2
    assert counts() == before


def test_libraries_are_looked_for_again_after_an_import(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[int] = []
    found = threads.ThreadpoolController()
    monkeypatch.setattr(threads, "ThreadpoolController", lambda: looked.append(1) or found)
    threads._libraries.cache_clear()
    for _ in range(3):
        with one_thread():
            pass
    assert len(looked) == 1
    monkeypatch.setitem(sys.modules, "imported_just_now", types.ModuleType("imported_just_now"))
    with one_thread():
        pass
    assert len(looked) == 2
    threads._libraries.cache_clear()
