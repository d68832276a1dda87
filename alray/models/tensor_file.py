"""Named arrays in a safetensors file whose bytes are a function of its content alone.

The safetensors library orders the metadata by a hash that changes with every process, so that equal heads would have
unequal digests. The format is one JSON header and the raw arrays; it is written here with sorted keys and read back by
the library.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

import numpy as np
import safetensors.numpy
import safetensors.torch
from safetensors import SafetensorError

from alray import storage
from alray.errors import ModelError

DTYPES = {
    "float64": "F64",
    "float32": "F32",
    "float16": "F16",
    "int64": "I64",
    "int32": "I32",
    "uint8": "U8",
    "bool": "BOOL",
}


def to_bytes(arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> bytes:
    """Return the file's bytes: the same for equal arrays and metadata, in whatever order they are given."""
    header: dict[str, object] = {"__metadata__": dict(sorted(metadata.items()))}
    bodies, offset = [], 0
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        body = array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
        header[name] = {
            "dtype": DTYPES[array.dtype.name],
            "shape": list(arrays[name].shape),
            "data_offsets": [offset, offset + len(body)],
        }
        bodies.append(body)
        offset += len(body)
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # the format wants the arrays aligned to eight bytes
    return b"".join([len(text).to_bytes(8, "little"), text, *bodies])


def from_bytes(data: bytes, uri: str) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Return the arrays and the metadata; bf16 arrays arrive as float32. `uri` is for the error message."""
    try:
        arrays = _read(data)
        length = int.from_bytes(data[:8], "little")
        metadata = json.loads(data[8 : 8 + length]).get("__metadata__") or {}
    except (SafetensorError, ValueError, TypeError, KeyError) as error:
        raise ModelError(
            f"`{uri}` is not a readable safetensors file: {error}. Expected a whole file written by safetensors."
        ) from error
    return arrays, metadata


def _read(data: bytes) -> dict[str, np.ndarray]:
    length = int.from_bytes(data[:8], "little")
    if b'"BF16"' not in data[8 : 8 + min(length, len(data))]:
        return dict(safetensors.numpy.load(data))
    return {  # NumPy has no bfloat16
        name: (tensor.float() if tensor.dtype.is_floating_point else tensor).numpy()
        for name, tensor in safetensors.torch.load(data).items()
    }


def load(uri: str) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Read a safetensors file, local or remote: its arrays and its metadata."""
    return from_bytes(storage.read_bytes(uri), uri)


def save(uri: str, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> None:
    """Write a safetensors file, local or remote, in one step."""
    storage.write_bytes(uri, to_bytes(arrays, metadata))
