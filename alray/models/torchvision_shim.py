"""Let `import torchvision` work where its C++ extension cannot load, which happens to a CUDA wheel on a CPU-only torch.

torchvision declares shape functions for two detection operators, `nms` and `qnms`, when it is imported, and fails if
nobody has defined them. Classification models, their weights and transforms v2 never call either, so their two schemas
are all that is defined here, without any implementation: whoever calls one gets torch's own clear error.
`install()` imports nothing; it waits for the first `import torchvision`. Where the native extension loads, nothing is
changed: a schema defined beside the native one would abort the process.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

_library: Any = None  # torch removes the operators of a Library that is collected


def install() -> None:
    """Watch for the first `import torchvision`. Costs nothing, and may be called any number of times."""
    if "torchvision" not in sys.modules and _Watch not in sys.meta_path:
        sys.meta_path.insert(0, _Watch)


def state() -> str:
    """Return `shim`, `native`, or `not imported`."""
    if _library is not None:
        return "shim"
    return "native" if "torchvision" in sys.modules else "not imported"


class _Watch:
    """A finder that acts once, for torchvision, and then takes itself off the list."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name != "torchvision":
            return None
        sys.meta_path.remove(_Watch)
        spec = importlib.util.find_spec(name)
        folders = spec.submodule_search_locations if spec else None
        if folders and not _native_loads(Path(folders[0])):
            _define()
        return spec


def _native_loads(package: Path) -> bool:
    import torch

    for library in sorted(package.glob("_C*.so")) + sorted(package.glob("_C*.pyd")):
        try:
            # What torchvision itself does next; loading twice is harmless.
            torch.ops.load_library(str(library))  # type: ignore[no-untyped-call]
            return True
        except OSError:  # e.g. libc10_cuda.so: cannot open shared object file
            continue
    return False


def _define() -> None:
    global _library
    import torch

    _library = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
    for operator in ("nms", "qnms"):
        _library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
