"""Backbone weights from a file: read without running any code, and matched name by name.

A file that does not fit is refused with the names that do not; nothing is loaded in part. The classification layer may
be in the file or not: alray replaces it anyway.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from alray import storage
from alray.errors import ModelError
from alray.models import tensor_file

SUFFIXES = (".safetensors", ".pt", ".pth")

WRAPPERS = ("state_dict", "model_state_dict", "model", "backbone")
"""Keys under which training scripts put the weights beside their optimiser."""

AUXILIARY = ("AuxLogits.", "aux1.", "aux2.")
"""Training-time branches of Inception and GoogLeNet, which alray builds without."""

NOT_WEIGHTS = "num_batches_tracked"
"""Counters of batch norm that old files lack and no forward pass reads."""


def is_file(name: str) -> bool:
    """Say whether `weights: name` means a file rather than a name of torchvision's."""
    return name.endswith(SUFFIXES)


def read(uri: str) -> dict[str, Tensor]:
    """Return the tensors of a `.safetensors`, `.pt` or `.pth` file, local or remote, by name."""
    data = storage.read_bytes(uri)
    if uri.endswith(".safetensors"):
        arrays, _ = tensor_file.from_bytes(data, uri)
        return {name: torch.from_numpy(array.copy()) for name, array in arrays.items()}
    try:
        found = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise ModelError(
            f"`{uri}` cannot be read as plain weights: {_first_line(error)} Expected tensors by name, as "
            "`torch.save(model.state_dict(), …)` writes; a whole pickled model is refused because reading it runs code."
        ) from error
    return _unwrapped(found, uri)


def write(uri: str, state: Mapping[str, Any]) -> None:
    """Write tensors and plain values as `torch.load(weights_only=True)` reads them; the file is whole or not there."""
    out = io.BytesIO()
    torch.save(state, out)
    storage.write_bytes(uri, out.getvalue())


def read_state(uri: str) -> Any:
    """Return what `write` wrote; ModelError for anything else, such as a pickle, of which nothing is run."""
    try:
        return torch.load(io.BytesIO(storage.read_bytes(uri)), map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise ModelError(
            f"`{uri}` is not the checkpoint that alray wrote there: {_first_line(error)} Delete its folder; the same "
            "command trains from the one before, or from the start."
        ) from error


def fill(body: nn.Module, tensors: Mapping[str, Tensor], *, dropped: str | None, uri: str) -> None:
    """Copy `tensors` into `body`, whose classification layer was called `dropped`; refuse any that do not fit."""
    own = body.state_dict()
    skipped = (f"{dropped}.", *AUXILIARY) if dropped else AUXILIARY
    given = {k: v for k, v in tensors.items() if k in own or not k.startswith(skipped)}
    missing = [k for k in own if k not in given and not k.endswith(NOT_WEIGHTS)]
    unexpected = [k for k in given if k not in own]
    if missing or unexpected:
        raise ModelError(
            f"The weights `{uri}` are not this backbone's: missing {_some(missing)}; unexpected {_some(unexpected)}. "
            "Expected the names of the model that `backbone` says."
        )
    other = [k for k, v in given.items() if v.shape != own[k].shape]
    if other:
        shapes = _some(f"{k} {list(given[k].shape)} instead of {list(own[k].shape)}" for k in other)
        raise ModelError(f"The weights `{uri}` have other shapes: {shapes}. Set `backbone` to the model they are of.")
    bad = [k for k, v in given.items() if v.is_floating_point() and not torch.isfinite(v).all()]
    if bad:
        raise ModelError(f"The weights `{uri}` have NaN or infinite numbers in {_some(bad)}. Use a sound checkpoint.")
    body.load_state_dict(given, strict=False)


def _unwrapped(found: Any, uri: str) -> dict[str, Tensor]:
    for wrapper in WRAPPERS:
        if isinstance(found, Mapping) and isinstance(found.get(wrapper), Mapping):
            found = found[wrapper]
            break
    if not isinstance(found, Mapping) or not all(isinstance(v, Tensor) for v in found.values()) or not found:
        raise ModelError(
            f"`{uri}` holds no weights by name. Expected a state dict: tensors by name, alone or under one of "
            f"{', '.join(f'`{w}`' for w in WRAPPERS)}."
        )
    whole = all(name.startswith("module.") for name in found)  # written from inside DataParallel
    return {name.removeprefix("module.") if whole else name: tensor for name, tensor in found.items()}


def _some(names: Iterable[str]) -> str:
    listed = list(names)
    shown = ", ".join(listed[:4])
    return f"{shown}, … ({len(listed)} in all)" if len(listed) > 4 else shown or "none"


def _first_line(error: Exception) -> str:
    text = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return text if text.endswith(".") else f"{text}."
