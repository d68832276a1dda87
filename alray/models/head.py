"""Head: the small classifier on top of features, as a value that can be stored, compared and applied.

A linear head is `weight` [C, D] and `bias` [C]. An MLP head has one hidden layer before it, `hidden_weight` [H, D]
and `hidden_bias` [H], then a ReLU; its batch norm is folded into those two when it is made, so that a head is affine
maps and a ReLU and nothing with a mode.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from alray import storage
from alray.errors import ModelError
from alray.models import tensor_file
from alray.ops.affine import affine

SCHEMA = 1

SHAPES = {
    "linear": {"weight": "CD", "bias": "C"},
    "mlp": {"hidden_weight": "HD", "hidden_bias": "H", "weight": "CH", "bias": "C"},
}


@dataclass(frozen=True, eq=False)
class Head:
    """A classifier over features: D numbers in, one logit a class out."""

    kind: Literal["linear", "mlp"]
    classes: tuple[str, ...]
    weights: Mapping[str, np.ndarray]
    activation: Literal["softmax"] = "softmax"
    source: str = "The head"  # where it was read from, for messages

    def __post_init__(self) -> None:
        object.__setattr__(self, "weights", MappingProxyType(_checked(self.kind, self.weights, self.source)))
        _check_classes(self.classes, self.source)
        if len(self.classes) != len(self.weights["bias"]):
            raise ModelError(
                f"{self.source} has {len(self.weights['bias'])} rows and {len(self.classes)} classes "
                f"({_some(self.classes)}). Expected one row a class: set `classes` to the head's own list, in order."
            )

    def __reduce__(self) -> tuple[type[Head], tuple[object, ...]]:
        # Heads are sent to workers, and a mapping proxy cannot be.
        return Head, (self.kind, self.classes, dict(self.weights), self.activation, self.source)

    @staticmethod
    def linear(weight_CD: np.ndarray, bias_C: np.ndarray, classes: Sequence[str]) -> Head:
        """Return the linear head x ↦ x·weightᵀ + bias."""
        return Head("linear", tuple(classes), {"weight": weight_CD, "bias": bias_C})

    @property
    def dim(self) -> int:
        """D, the size of the features it takes."""
        name = "weight" if self.kind == "linear" else "hidden_weight"
        return int(self.weights[name].shape[1])

    @property
    def hidden_dim(self) -> int:
        """H, the size of what the last affine layer takes; D for a linear head."""
        return int(self.weights["weight"].shape[1])

    @property
    def last(self) -> tuple[Tensor, Tensor]:
        """The last affine layer: weight [C, H] and bias [C], fp32."""
        return self._tensor("weight"), self._tensor("bias")

    def hidden(self, x_ND: Tensor) -> Tensor:
        """Return what the last affine layer takes, fp32 [N, H], for fp32 features."""
        if x_ND.shape[1] != self.dim:
            raise ModelError(
                f"{self.source} takes features of size {self.dim}, these have {x_ND.shape[1]}. "
                "Use a head that was trained on this pool's features."
            )
        if self.kind == "linear":
            return x_ND
        return torch.relu(self._affine(x_ND, "hidden_weight", "hidden_bias"))

    def logits(self, x_ND: Tensor) -> Tensor:
        """Return the logits, fp32 [N, C], for fp32 features [N, D]."""
        return self._affine(self.hidden(x_ND), "weight", "bias")

    def save(self, uri: str) -> None:
        """Write the head as safetensors, in one step."""
        storage.write_bytes(uri, self.to_bytes())

    def to_bytes(self) -> bytes:
        """Return the file's bytes, which equal heads share."""
        metadata = {
            "schema": str(SCHEMA),
            "kind": self.kind,
            "activation": self.activation,
            "classes": json.dumps(list(self.classes), ensure_ascii=False),
        }
        return tensor_file.to_bytes(self.weights, metadata)

    def digest(self) -> str:
        """Return the sha256 of the file that `save` writes."""
        return hashlib.sha256(self.to_bytes()).hexdigest()

    @staticmethod
    def load(uri: str, classes: Sequence[str] | None = None) -> Head:
        """Read a head. `classes` names the rows of a file that does not do so itself, and else must agree with it.

        A file with a bare `weight` and `bias` is linear; without names of any kind its rows are "0", "1", ….
        """
        arrays, metadata = tensor_file.load(uri)
        source = f"The head `{uri}`"
        _check_metadata(metadata, source)
        kind: Literal["linear", "mlp"] = "mlp" if metadata.get("kind") == "mlp" else "linear"
        named = _classes(metadata, source)
        if named is not None and classes is not None and tuple(classes) != named:
            raise ModelError(
                f"{source} was trained on the classes {_some(named)}; `classes` says {_some(tuple(classes))}. "
                "Expected the same names in the same order: set `classes` to the head's, or fit a new head."
            )
        if named is None:
            named = tuple(classes) if classes is not None else tuple(map(str, range(len(arrays.get("bias", ())))))
        return Head(kind, named, arrays, source=source)

    def _affine(self, x: Tensor, weight: str, bias: str) -> Tensor:
        return affine(x, self._tensor(weight).to(x.device), self._tensor(bias).to(x.device))

    def _tensor(self, name: str) -> Tensor:
        # An array that came from another process is read-only, which torch warns about: then, and only then, copy.
        return torch.from_numpy(np.require(self.weights[name], requirements="W"))


def _checked(kind: str, weights: Mapping[str, np.ndarray], source: str) -> dict[str, np.ndarray]:
    """Return the arrays as read-only fp32 after checking their names, shapes and values."""
    expected = SHAPES[kind]
    if set(weights) != set(expected):
        raise ModelError(
            f"{source} holds the arrays {sorted(weights)}. Expected exactly {sorted(expected)} for a {kind} head; "
            "a file with other names must say its `kind` in its metadata."
        )
    sizes: dict[str, int] = {}
    out = {}
    for name, letters in expected.items():
        array = np.array(weights[name], dtype=np.float32, order="C")  # a copy: nobody else can change a head
        if array.ndim != len(letters) or any(
            sizes.setdefault(x, n) != n for x, n in zip(letters, array.shape, strict=True)
        ):
            shapes = {n: list(np.shape(weights[n])) for n in expected}
            raise ModelError(f"{source} has arrays of shapes {shapes}. Expected {_wanted(expected)} for a {kind} head.")
        if not np.isfinite(array).all():
            raise ModelError(
                f"{source} has NaN or infinite numbers in `{name}`. Expected finite fp32 weights; train it again."
            )
        out[name] = array
    return out


def _wanted(expected: Mapping[str, str]) -> str:
    return ", ".join(f"`{name}` [{', '.join(letters)}]" for name, letters in expected.items())


def _check_classes(classes: tuple[str, ...], source: str) -> None:
    if not classes or not all(isinstance(c, str) and c for c in classes):
        raise ModelError(
            f"{source} has the classes {_some(classes)}. Expected at least one, each a string that is not empty."
        )
    twice = sorted({c for c in classes if classes.count(c) > 1}) if len(set(classes)) < len(classes) else []
    if twice:
        raise ModelError(
            f"{source} names the classes {_some(tuple(twice))} more than once. Expected distinct `classes`."
        )


def _check_metadata(metadata: Mapping[str, str], source: str) -> None:
    schema = metadata.get("schema", "1")
    if not schema.isdigit() or int(schema) > SCHEMA:
        raise ModelError(f"{source} has schema {schema}; this alray reads up to {SCHEMA}. Use a newer alray.")
    for key, known in (("kind", ("linear", "mlp")), ("activation", ("softmax",))):
        if metadata.get(key, known[0]) not in known:
            raise ModelError(f"{source} says `{key}` {metadata[key]!r}. Expected one of {', '.join(known)}.")


def _classes(metadata: Mapping[str, str], source: str) -> tuple[str, ...] | None:
    if "classes" not in metadata:
        return None
    try:
        classes = json.loads(metadata["classes"])
    except ValueError:
        classes = None
    if not isinstance(classes, list):
        raise ModelError(
            f"{source} has `classes` {metadata['classes'][:80]!r} in its metadata. Expected a JSON list of strings."
        )
    return tuple(classes)


def _some(names: tuple[object, ...]) -> str:
    shown = ", ".join(repr(n) for n in names[:5])
    return f"{shown}, … ({len(names)} in all)" if len(names) > 5 else shown or "none"
