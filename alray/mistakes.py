"""What is wrong with a settings file, in words: each pydantic error becomes one line that says how to mend it.

pydantic's own messages speak of Python types and of unions; the reader of these wrote YAML.
"""

from __future__ import annotations

import types
import typing
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from alray.errors import nearest


class Choice(ABC):
    """A mark on a field whose value names one of several classes under the key `tag`."""

    tag: str

    @abstractmethod
    def section(self, value: object) -> type[BaseModel] | None:
        """Return the class that `value` names, or None when it names none."""

    @abstractmethod
    def expected(self) -> str:
        """Return what may be given, in words."""


class Place(NamedTuple):
    """Where an error location leads: its dotted path, its type, and the class that stands there."""

    path: str
    annotation: Any
    metadata: Sequence[Any]
    section: type[BaseModel] | None
    choice: Choice | None


def find(model: type[BaseModel], raw: Any, loc: Sequence[int | str]) -> Place:
    """Follow `loc` through the classes; stop where it leaves them (pydantic adds a part for each union)."""
    path, annotation, metadata, value = "", typing.cast(Any, model), typing.cast(Sequence[Any], ()), raw
    for part in loc:
        section, _ = section_of(annotation, metadata, value)
        if section and part in section.model_fields:
            field = section.model_fields[str(part)]
            annotation, metadata, path = field.annotation, field.metadata, f"{path}.{part}".lstrip(".")
            value = value.get(part) if isinstance(value, Mapping) else None
        elif isinstance(part, int) and (element := _element(annotation)) is not None:
            annotation, metadata, path = element, (), f"{path}[{part}]"
            value = value[part] if isinstance(value, list) and part < len(value) else None
        elif (value_type := _value(annotation)) is not None:
            annotation, metadata, path = value_type, (), f"{path}.{part}"
            value = value.get(part) if isinstance(value, Mapping) else None
        else:
            break
    return Place(path, annotation, metadata, *section_of(annotation, metadata, value))


def section_of(annotation: Any, metadata: Sequence[Any], value: Any) -> tuple[type[BaseModel] | None, Choice | None]:
    for item in metadata:
        if isinstance(item, Choice):
            return item.section(value), item
    if hasattr(annotation, "__metadata__"):  # Annotated inside a union or a list
        return section_of(annotation.__origin__, annotation.__metadata__, value)
    inner = _choices(annotation)
    if len(inner) == 1 and inner[0] is not annotation:
        return section_of(inner[0], (), value)
    return (annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None), None


def _choices(annotation: Any) -> list[Any]:
    """Return the members of a union without None; anything else is a union of one."""
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return [a for a in typing.get_args(annotation) if a is not type(None)]
    return [annotation]


def _element(annotation: Any) -> Any:
    lists = [a for a in _choices(annotation) if typing.get_origin(a) in (list, tuple)]
    return typing.get_args(lists[0])[0] if len(lists) == 1 and len(_choices(annotation)) == 1 else None


def _value(annotation: Any) -> Any:
    return typing.get_args(annotation)[1] if typing.get_origin(annotation) is dict else None


def line(error: ErrorDetails, model: type[BaseModel], raw: Any) -> str:
    """Return one mistake as `path: what (expected …) Did you mean `x`?`."""
    kind, loc = error["type"], error["loc"]
    if kind == "extra_forbidden":
        parent = find(model, raw, loc[:-1])
        fields = parent.section.model_fields if parent.section else {}
        close = nearest(str(loc[-1]), fields)
        known = close or f" (expected {_keys(fields)})"
        return f"{parent.path}.{loc[-1]}".lstrip(".") + f": unknown key{'.' if close else ''}{known}"
    place = find(model, raw, loc)
    path = place.path or "settings"
    if kind in ("value_error", "family"):
        return f"{path}: {error['msg'].removeprefix('Value error, ')}"
    expected = _expected(place.annotation, place.metadata)
    if kind == "missing":
        return f"{path}: missing (expected {expected})"
    close = nearest(str(error["input"]), typing.get_args(place.annotation)) if kind == "literal_error" else ""
    return f"{path}: is {shown(error['input'])} (expected {expected}){close}"


_WORDS: dict[Any, str] = {
    int: "a whole number",
    float: "a finite number",
    str: "text",
    bool: "true or false",
    type(None): "nothing",
    dict: "`key: value` pairs",
    list: "a list",
    tuple: "a list",
    Any: "anything",
}
_PLURAL: dict[Any, str] = {int: "whole numbers", float: "finite numbers", str: "texts"}
_LIMITS = {
    "ge": "{} or more",
    "gt": "above {}",
    "le": "at most {}",
    "lt": "below {}",
    "min_length": "at least {} long",
}


def _expected(annotation: Any, metadata: Sequence[Any]) -> str:
    """Return a type and its limits in words: `a whole number, 1 or more`."""
    for item in metadata:
        if isinstance(item, Choice):
            return item.expected()
    metadata = [inner for item in metadata for inner in (item, *getattr(item, "metadata", ()))]  # of a Field in a dict
    limits = [text.format(getattr(m, key)) for m in metadata for key, text in _LIMITS.items() if hasattr(m, key)]
    return ", ".join([_type_words(annotation), *limits])


def _type_words(annotation: Any) -> str:
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if hasattr(annotation, "__metadata__"):
        return _expected(annotation.__origin__, annotation.__metadata__)
    if origin is typing.Literal:
        return "one of " + ", ".join(map(str, args))
    if origin in (typing.Union, types.UnionType):
        return " or ".join(dict.fromkeys(map(_type_words, args)))
    if origin in (list, tuple) and args:
        return f"a list of {_PLURAL.get(args[0]) or _type_words(args[0])}"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return f"a section with {_keys(annotation.model_fields)}"
    return _WORDS.get(origin or annotation) or str(getattr(annotation, "__name__", annotation))


def _keys(fields: Mapping[str, Any]) -> str:
    return "no keys" if not fields else ", ".join(f"`{name}`" for name in fields)


def shown(value: object) -> str:
    """Return a value as YAML would show it, cut to fit a line."""
    text = repr(value)
    text = {"True": "true", "False": "false", "None": "nothing"}.get(text, text)
    return text if len(text) <= 60 else text[:57] + "…"
