"""Settings: frozen, typed, and read from YAML with every mistake reported at once.

A config class lives in the file of the thing it configures and extends `Config`; this module knows none
of them. Three sources, in this order: the defaults in the classes, one YAML file, `key=value` words. There are no
includes, no interpolation and no variables, so that a stored `config.yaml` says all that a run was told.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler, ValidationError, ValidationInfo, field_validator
from pydantic_core import CoreSchema, ErrorDetails, PydanticCustomError, core_schema

from alray.errors import ConfigError, nearest


class Config(BaseModel):
    """Base of all settings: frozen; refuses unknown keys, NaN, infinity, and true or false for a number."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _refuse_bool_for_number(cls, value: Any, info: ValidationInfo) -> Any:
        # Python counts True as 1, and YAML reads a bare `yes` or `on` as True.
        given = value if isinstance(value, list) else [value]
        if any(isinstance(v, bool) for v in given) and not _takes_bool(cls.model_fields[str(info.field_name)].annotation):
            raise PydanticCustomError("bool_for_number", "true or false")
        return value


T = TypeVar("T", bound=Config)
C = TypeVar("C", bound=Config)


def load(uri: str, overrides: Sequence[str], model: type[T]) -> T:
    """Read the YAML file at `uri`, apply `key=value` overrides, and return it as a `model`.

    Every mistake is in the one `ConfigError` raised: one line each, with its dotted path, the value, what was
    expected and the nearest valid name.
    """
    from alray import storage

    if not storage.exists(uri):
        raise ConfigError(f"There is no config file at {uri!r}. Give the path or URI of a YAML file.")
    return parse(_read_yaml(storage.read_text(uri), source=uri), model, source=uri, overrides=overrides)


def parse(raw: Mapping[str, Any], model: type[T], *, source: str = "settings", overrides: Sequence[str] = ()) -> T:
    """Return `raw` with `overrides` applied as a `model`; `source` is the name that an error message starts with."""
    raw, mistakes = _apply(raw, overrides, model)
    try:
        config = model.model_validate(raw)
    except ValidationError as error:
        lines = [_line(found, model, raw) for found in error.errors(include_url=False)]
        mistakes += dict.fromkeys(lines)  # a union reports one value several times
    if mistakes:
        count = "1 mistake" if len(mistakes) == 1 else f"{len(mistakes)} mistakes"
        raise ConfigError("\n".join([f"{source} has {count}:", *(f"  {line}" for line in mistakes)]))
    return config


def apply(raw: Mapping[str, Any], overrides: Sequence[str], model: type[Config] | None = None) -> dict[str, Any]:
    """Return `raw` with each `dotted.path=value` set; a value is read as YAML.

    With the `model` of `raw`, a member given by its bare name keeps it: `strategy: margin` and `strategy.x=1`
    make `{name: margin, x: 1}`.
    """
    out, mistakes = _apply(raw, overrides, model)
    if mistakes:
        raise ConfigError("\n".join(["The `key=value` words have mistakes:", *(f"  {line}" for line in mistakes)]))
    return out


def dump(config: Config) -> str:
    """Return `config` as YAML that `load` reads back to an equal object; nothing is left out."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


# Families: settings that name one of several classes

Members = Mapping[str, type[C]]


class Family(Generic[C]):
    """A set of config classes known by name; see `family`."""

    def __init__(
        self, base: type[C], members: Members[C] | Callable[[], Members[C]], tag: str, hint: Callable[[str], str] | None
    ) -> None:
        self.base, self._members, self.tag, self._hint = base, members, tag, hint

    @property
    def members(self) -> Members[C]:
        """The classes by name."""
        return self._members() if callable(self._members) else self._members

    def build(self, value: object, *, at: str = "") -> C:
        """Return the member that `value` means: an instance, a name, or `{name: …, fields}`; else `ConfigError`."""
        at = at or self.base.__name__.lower()
        if isinstance(value, str):
            value = {self.tag: value}
        try:
            return self._validate(value)
        except PydanticCustomError as error:
            raise ConfigError(f"{at}: {error.message()}") from None
        except ValidationError as error:
            member = self._member(value)
            lines = [f"  {at}.{_line(e, member, value)}" for e in error.errors(include_url=False)]
            raise ConfigError("\n".join([f"`{at}` has mistakes:", *dict.fromkeys(lines)])) from None

    def section(self, value: object) -> type[C] | None:
        """Return the class that `value` names, or None when it names none."""
        try:
            return type(value) if isinstance(value, self.base) else self._member(value)
        except PydanticCustomError:
            return None

    def expected(self) -> str:
        """Return what may be given, in words."""
        return "one of " + ", ".join(sorted(self.members))

    def _member(self, value: object) -> type[C]:
        name = value.get(self.tag) if isinstance(value, Mapping) else value
        if isinstance(name, str) and name in self.members:
            return self.members[name]
        if isinstance(value, Mapping) and self.tag not in value:
            said = f"has no `{self.tag}` (expected {self.expected()})"
        else:
            hint = self._hint(name) if self._hint and isinstance(name, str) else ""
            hint = hint or nearest(str(name), self.members)
            said = f"unknown {self.tag} {_shown(name)} (expected {self.expected()}){hint and ' ' + hint.strip()}"
        raise PydanticCustomError("family", "{said}", {"said": said})

    def _validate(self, value: object) -> C:
        if isinstance(value, self.base):
            return value
        member = self._member(value)
        fields = dict(value) if isinstance(value, Mapping) else {}
        if self.tag not in member.model_fields:
            fields.pop(self.tag, None)
        return member.model_validate(fields)

    def _dump(self, value: C) -> dict[str, Any]:
        name = next((n for n, member in self.members.items() if type(value) is member), None)
        return {**({self.tag: name} if name else {}), **value.model_dump(mode="json")}

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            self._validate, serialization=core_schema.plain_serializer_function_ser_schema(self._dump)
        )


def family(
    base: type[C],
    members: Members[C] | Callable[[], Members[C]],
    *,
    tag: str = "name",
    hint: Callable[[str], str] | None = None,
) -> Family[C]:
    """Return the family of `members` of `base`, each chosen by its name under the key `tag`.

    As a field: `strategy: Annotated[Strategy, family(Strategy, members)]` takes `{name: margin, …}` or just
    `margin`. By hand: `family(Strategy, members).build("margin")`. `members` may be a function, called when a value
    is read; `hint(name)` may say more about an unknown name than the nearest one.
    """
    return Family(base, members, tag, hint)


# Reading


class _Loader(yaml.SafeLoader):
    """YAML's safe loader, but a key given twice is a mistake instead of the last one winning."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: dict[Any, yaml.Mark] = {}
        for key_node, _ in node.value:
            key, mark = key_node.value, key_node.start_mark
            if isinstance(key, str) and key in seen:
                first = seen[key].line + 1
                raise yaml.MarkedYAMLError(problem=f"the key `{key}` was given on line {first} too", problem_mark=mark)
            if isinstance(key, str):
                seen[key] = mark
        return super().construct_mapping(node, deep)


def _read_yaml(text: str, *, source: str) -> dict[str, Any]:
    try:
        raw = yaml.load(text, Loader=_Loader)  # noqa: S506 - a SafeLoader
    except yaml.YAMLError as error:
        raise ConfigError(f"{source} is not YAML that alray reads: {_yaml_problem(error)}") from None
    if not isinstance(raw, dict):
        kind = {list: "a list", type(None): "nothing"}.get(type(raw), _shown(raw))
        raise ConfigError(f"{source} holds {kind} at its top level; expected `key: value` settings.")
    return raw


def _yaml_problem(error: yaml.YAMLError) -> str:
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
    place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
    return f"{place}{problem or error}."


def _apply(
    raw: Mapping[str, Any], overrides: Sequence[str], model: type[Config] | None
) -> tuple[dict[str, Any], list[str]]:
    out, mistakes = _copied(raw), []
    for word in overrides:
        path, equals, text = word.partition("=")
        keys = path.strip().split(".")
        if not equals or not all(keys):
            mistakes.append(f"{word}: is not a setting (expected `dotted.path=value`, as in `seed=1`)")
            continue
        try:
            value = yaml.load(text, Loader=_Loader)  # noqa: S506 - a SafeLoader
        except yaml.YAMLError as error:
            mistakes.append(f"{path}: {_shown(text)} is not YAML: {_yaml_problem(error)}")
            continue
        if stop := _set(out, keys, value, model):
            mistakes.append(f"{path}: `{stop}` is a list or a single value, so nothing can be set inside it")
    return out, mistakes


def _set(out: dict[str, Any], keys: list[str], value: Any, model: type[Config] | None) -> str | None:
    """Set `value` under `keys`; return the path of the part that cannot hold keys, if there is one."""
    section = out
    for depth, key in enumerate(keys[:-1], start=1):
        inner = section.get(key)
        chosen = _find(model, out, keys[:depth]).family if model else None
        if inner is None:
            inner = {}
        elif isinstance(inner, str) and chosen:
            inner = {chosen.tag: inner}
        elif not isinstance(inner, dict):
            return ".".join(keys[:depth])
        section[key] = section = inner
    section[keys[-1]] = value
    return None


def _copied(raw: Mapping[str, Any]) -> dict[str, Any]:
    return {k: _copied(v) if isinstance(v, Mapping) else v for k, v in raw.items()}


# Saying what is wrong


class _Place(NamedTuple):
    """Where an error location leads: its dotted path, its type, and the classes that may stand there."""

    path: str
    annotation: Any
    metadata: Sequence[Any]
    section: type[Config] | None
    family: Family[Any] | None


def _find(model: type[Config], raw: Any, loc: Sequence[int | str]) -> _Place:
    """Follow `loc` through the classes; stop where it leaves them (pydantic adds a part for each union)."""
    path, annotation, metadata, value = "", typing.cast(Any, model), typing.cast(Sequence[Any], ()), raw
    for part in loc:
        section, _ = _section(annotation, metadata, value)
        if section and part in section.model_fields:
            field = section.model_fields[str(part)]
            annotation, metadata, path = field.annotation, field.metadata, f"{path}.{part}".lstrip(".")
            value = value.get(part) if isinstance(value, Mapping) else None
        elif isinstance(part, int) and (element := _element(annotation)) is not None:
            annotation, metadata, path = element, (), f"{path}[{part}]"
            value = value[part] if isinstance(value, list) and part < len(value) else None
        else:
            break
    return _Place(path, annotation, metadata, *_section(annotation, metadata, value))


def _section(annotation: Any, metadata: Sequence[Any], value: Any) -> tuple[type[Config] | None, Family[Any] | None]:
    for item in metadata:
        if isinstance(item, Family):
            return item.section(value), item
    if hasattr(annotation, "__metadata__"):  # Annotated inside a union or a list
        return _section(annotation.__origin__, annotation.__metadata__, value)
    inner = _choices(annotation)
    if len(inner) == 1 and inner[0] is not annotation:
        return _section(inner[0], (), value)
    return (annotation if isinstance(annotation, type) and issubclass(annotation, Config) else None), None


def _choices(annotation: Any) -> list[Any]:
    """Return the members of a union without None; anything else is a union of one."""
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return [a for a in typing.get_args(annotation) if a is not type(None)]
    return [annotation]


def _element(annotation: Any) -> Any:
    lists = [a for a in _choices(annotation) if typing.get_origin(a) in (list, tuple)]
    return typing.get_args(lists[0])[0] if len(lists) == 1 and len(_choices(annotation)) == 1 else None


def _takes_bool(annotation: Any) -> bool:
    if annotation in (bool, Any, object):
        return True
    if hasattr(annotation, "__metadata__"):
        return _takes_bool(annotation.__origin__)
    return any(_takes_bool(a) or isinstance(a, bool) for a in typing.get_args(annotation))


def _line(error: ErrorDetails, model: type[Config], raw: Any) -> str:
    """Return one mistake as `path: what (expected …) Did you mean `x`?`."""
    kind, loc = error["type"], error["loc"]
    if kind == "extra_forbidden":
        parent = _find(model, raw, loc[:-1])
        fields = parent.section.model_fields if parent.section else {}
        close = nearest(str(loc[-1]), fields)
        known = close or f" (expected {_keys(fields)})"
        return f"{parent.path}.{loc[-1]}".lstrip(".") + f": unknown key{'.' if close else ''}{known}"
    place = _find(model, raw, loc)
    path = place.path or "settings"
    if kind in ("value_error", "family"):
        return f"{path}: {error['msg'].removeprefix('Value error, ')}"
    expected = _expected(place.annotation, place.metadata)
    if kind == "missing":
        return f"{path}: missing (expected {expected})"
    close = nearest(str(error["input"]), typing.get_args(place.annotation)) if kind == "literal_error" else ""
    return f"{path}: is {_shown(error['input'])} (expected {expected}){close}"


_WORDS: dict[Any, str] = {
    int: "a whole number", float: "a finite number", str: "text", bool: "true or false", type(None): "nothing",
    dict: "`key: value` pairs", list: "a list", tuple: "a list", Any: "anything",
}
_LIMITS = {"ge": "{} or more", "gt": "above {}", "le": "at most {}", "lt": "below {}", "min_length": "at least {} long"}


def _expected(annotation: Any, metadata: Sequence[Any]) -> str:
    """Return a type and its limits in words: `a whole number, 1 or more`."""
    for item in metadata:
        if isinstance(item, Family):
            return item.expected()
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
        return f"a list of {_type_words(args[0]).removeprefix('a ').removeprefix('an ')}"
    if isinstance(annotation, type) and issubclass(annotation, Config):
        return f"a section with {_keys(annotation.model_fields)}"
    return _WORDS.get(origin or annotation) or getattr(annotation, "__name__", str(annotation))


def _keys(fields: Mapping[str, Any]) -> str:
    return "no keys" if not fields else ", ".join(f"`{name}`" for name in fields)


def _shown(value: object) -> str:
    """Return a value as YAML would show it, cut to fit a line."""
    text = repr(value)
    text = {"True": "true", "False": "false", "None": "nothing"}.get(text, text)
    return text if len(text) <= 60 else text[:57] + "…"
