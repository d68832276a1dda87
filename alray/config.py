"""Settings: frozen, typed, and read from YAML with every mistake reported at once.

A config class lives in the file of the thing it configures and extends `Config`; this module knows none of
them. Three sources, in this order: the defaults in the classes, one YAML file, `key=value` words. There are
no includes, no interpolation and no variables, so that a stored `config.yaml` says all that a run was told.
"""

from __future__ import annotations

import math
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, TypeVar

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    GetCoreSchemaHandler,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from alray import mistakes, storage
from alray.errors import ConfigError, nearest
from alray.mistakes import Choice


class Config(BaseModel):
    """Base of all settings: frozen; refuses unknown keys, NaN, infinity, and true or false for a number."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _refuse_bool_for_number(cls, value: Any, info: ValidationInfo) -> Any:
        # Python counts True as 1, and YAML reads a bare `yes` or `on` as True.
        given = value if isinstance(value, list) else [value]
        annotation = cls.model_fields[str(info.field_name)].annotation
        if any(isinstance(v, bool) for v in given) and not _takes_bool(annotation):
            raise PydanticCustomError("bool_for_number", "true or false")
        return value


T = TypeVar("T", bound=Config)
C = TypeVar("C", bound=Config)


def load(uri: str, overrides: Sequence[str], model: type[T]) -> T:
    """Read the YAML file at `uri`, apply `key=value` overrides, and return it as a `model`.

    Every mistake is in the one `ConfigError` raised: one line each, with its dotted path, the value, what was
    expected and the nearest valid name.
    """
    if not storage.exists(uri):
        raise ConfigError(f"There is no config file at {uri!r}. Give the path or URI of a YAML file.")
    return parse(_read_yaml(storage.read_text(uri), source=uri), model, source=uri, overrides=overrides)


def parse(raw: Mapping[str, Any], model: type[T], *, source: str = "settings", overrides: Sequence[str] = ()) -> T:
    """Return `raw` with `overrides` applied as a `model`; an error message starts with the name `source`."""
    raw, wrong = _apply(raw, overrides, model)
    try:
        config = model.model_validate(raw)
    except ValidationError as error:
        lines = [mistakes.line(found, model, raw) for found in error.errors(include_url=False)]
        wrong += dict.fromkeys(lines)  # a union reports one value several times
    if wrong:
        count = "1 mistake" if len(wrong) == 1 else f"{len(wrong)} mistakes"
        raise ConfigError("\n".join([f"{source} has {count}:", *(f"  {line}" for line in wrong)]))
    return config


def apply(raw: Mapping[str, Any], overrides: Sequence[str], model: type[Config] | None = None) -> dict[str, Any]:
    """Return `raw` with each `dotted.path=value` set; a value is read as YAML.

    With the `model` of `raw`, a member given by its bare name keeps it: `strategy: margin` and `strategy.x=1`
    make `{name: margin, x: 1}`.
    """
    out, wrong = _apply(raw, overrides, model)
    if wrong:
        raise ConfigError("\n".join(["The `key=value` words have mistakes:", *(f"  {line}" for line in wrong)]))
    return out


def dump(config: Config) -> str:
    """Return `config` as YAML that `load` reads back to an equal object; nothing is left out."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


# Families: settings that name one of several classes

Members = Mapping[str, type[C]]


class Family(Choice, Generic[C]):
    """A set of config classes known by name; see `family`."""

    def __init__(
        self,
        base: type[C],
        members: Members[C] | Callable[[], Members[C]],
        tag: str,
        hint: Callable[[str], str | None] | None,
        aliases: Mapping[str, str],
        elsewhere: Callable[[str], str | None] | None = None,
    ) -> None:
        self.base, self._members, self.tag, self._hint, self._aliases = base, members, tag, hint, aliases
        self._elsewhere = elsewhere

    @property
    def members(self) -> Members[C]:
        """The classes by name."""
        return self._members() if callable(self._members) else self._members

    def build(self, value: object, *, at: str = "") -> C:
        """Return the member that `value` means: an instance, a name, or `{name: …}`; else `ConfigError`."""
        at = at or self.base.__name__.lower()
        if isinstance(value, str):
            value = {self.tag: value}
        try:
            return self._validate(value)
        except PydanticCustomError as error:
            raise ConfigError(f"{at}: {error.message()}") from None
        except ValidationError as error:
            member = self._member(value)
            lines = [f"  {at}.{mistakes.line(e, member, value)}" for e in error.errors(include_url=False)]
            raise ConfigError("\n".join([f"`{at}` has mistakes:", *dict.fromkeys(lines)])) from None

    def section(self, value: object) -> type[C] | None:
        """Return the class that `value` names, or None when it names none."""
        try:
            return type(value) if isinstance(value, self.base) else self._member(value)
        except PydanticCustomError:
            return None

    def name_of(self, value: C) -> str:
        """Return the name of a member's instance; that of its class where it is not in the family."""
        return next((name for name, member in self.members.items() if type(value) is member), type(value).__name__)

    def expected(self) -> str:
        """Return what may be given, in words."""
        return "one of " + ", ".join(sorted(self.members))

    def _named(self, value: object) -> object:
        name = value.get(self.tag) if isinstance(value, Mapping) else value
        return self._aliases.get(name, name) if isinstance(name, str) else name

    def _member(self, value: object) -> type[C]:
        name = self._named(value)
        if isinstance(name, str) and name in self.members:
            return self.members[name]
        if isinstance(value, Mapping) and self.tag not in value:
            said = f"has no `{self.tag}` (expected {self.expected()})"
        elif self._elsewhere and isinstance(name, str) and (known := self._elsewhere(name)):
            said = known
        else:
            hint = self._hint(name) if self._hint and isinstance(name, str) else ""
            hint = (hint or nearest(str(name), self.members)).strip()
            said = f"unknown {self.tag} {mistakes.shown(name)} (expected {self.expected()}){hint and ' '}{hint}"
        raise PydanticCustomError("family", "{said}", {"said": said})

    def _validate(self, value: object) -> C:
        if isinstance(value, self.base):
            return value
        member = self._member(value)
        fields = dict(value) if isinstance(value, Mapping) else {}
        fields.pop(self.tag, None)
        if self.tag in member.model_fields:
            fields[self.tag] = self._named(value)
        return member.model_validate(fields)

    def _dump(self, value: C) -> dict[str, Any]:
        return {self.tag: self.name_of(value), **value.model_dump(mode="json")}

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            self._validate, serialization=core_schema.plain_serializer_function_ser_schema(self._dump)
        )


def family(
    base: Callable[..., C],  # a class; mypy takes an abstract one only this way
    members: Members[C] | Callable[[], Members[C]],
    *,
    tag: str = "name",
    hint: Callable[[str], str | None] | None = None,
    aliases: Mapping[str, str] | None = None,
    elsewhere: Callable[[str], str | None] | None = None,
) -> Family[C]:
    """Return the family of `members` of `base`, each chosen by its name under the key `tag`.

    As a field: `strategy: Annotated[Strategy, family(Strategy, members)]` takes `{name: margin, …}` or just
    `margin`. By hand: `family(Strategy, members).build("margin")`. `members` may be a function, called when a
    value is read; `hint(name)` may say more about an unknown name than the nearest one; `aliases` are other names of
    members, accepted but not listed; `elsewhere(name)` is all that is said of a name that others know and we do not.
    """
    return Family(typing.cast(type[C], base), members, tag, hint, aliases or {}, elsewhere)


# Reading


MAX_TEXT = 4 << 20
"""Characters of a settings file."""

MAX_VALUES = 100_000
"""Values of a settings file, those that an alias repeats counted each time."""


class _Loader(yaml.SafeLoader):
    """YAML's safe loader, but a key given twice is a mistake instead of the last one winning.

    So is a file whose aliases repeat each other: nine lines of nine aliases are a billion values to whoever walks them.
    """

    def get_single_node(self) -> yaml.Node | None:
        node = super().get_single_node()
        if node is not None and _count(node, {}) > MAX_VALUES:
            raise yaml.MarkedYAMLError(problem=f"it has more than {MAX_VALUES:,} values, aliases counted")
        return node

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


def _count(node: yaml.Node, counts: dict[int, float]) -> float:
    """Return how many values there are in a node; infinitely many in one that holds itself."""
    if isinstance(node, yaml.ScalarNode):
        return 1
    if id(node) not in counts:
        counts[id(node)] = math.inf  # until all that is in it is counted
        pairs = isinstance(node, yaml.MappingNode)
        inner = [one for pair in node.value for one in pair] if pairs else node.value
        counts[id(node)] = 1 + sum(_count(one, counts) for one in inner)
    return counts[id(node)]


def load_yaml(text: str) -> Any:
    """Return what a text means as YAML; raise yaml.YAMLError for whatever is wrong with it, or too much of it."""
    if len(text) > MAX_TEXT:
        raise yaml.YAMLError(f"it has {len(text):,} characters, more than {MAX_TEXT:,}")
    try:
        return yaml.load(text, Loader=_Loader)
    except RecursionError:
        raise yaml.YAMLError("it is nested too deeply") from None
    except (ValueError, OverflowError) as error:  # a number or a date that Python cannot hold
        raise yaml.YAMLError(str(error)) from None


def _read_yaml(text: str, *, source: str) -> dict[str, Any]:
    try:
        raw = load_yaml(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{source} is not YAML that alray reads: {_yaml_problem(error)}") from None
    if not isinstance(raw, dict):
        kind = {list: "a list", type(None): "nothing"}.get(type(raw), mistakes.shown(raw))
        raise ConfigError(f"{source} holds {kind} at its top level; expected `key: value` settings.")
    return raw


def _yaml_problem(error: yaml.YAMLError) -> str:
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
    place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
    return f"{place}{problem or error}."


def _apply(
    raw: Mapping[str, Any], overrides: Sequence[str], model: type[Config] | None
) -> tuple[dict[str, Any], list[str]]:
    out, wrong = _copied(raw), []
    for word in overrides:
        path, equals, text = word.partition("=")
        keys = path.strip().split(".")
        if not equals or not all(keys):
            wrong.append(f"{word}: is not a setting (expected `dotted.path=value`, as in `seed=1`)")
            continue
        try:
            value = load_yaml(text)
        except yaml.YAMLError as error:
            wrong.append(f"{path}: {mistakes.shown(text)} is not YAML: {_yaml_problem(error)}")
            continue
        if stop := _set(out, keys, value, model):
            wrong.append(f"{path}: `{stop}` is a list or a single value, so nothing can be set inside it")
    return out, wrong


def _set(out: dict[str, Any], keys: list[str], value: Any, model: type[Config] | None) -> str | None:
    """Set `value` under `keys`; return the path of the part that cannot hold keys, if there is one."""
    section = out
    for depth, key in enumerate(keys[:-1], start=1):
        inner = section.get(key)
        chosen = mistakes.find(model, out, keys[:depth]).choice if model else None
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


def _takes_bool(annotation: Any) -> bool:
    if annotation in (bool, Any, object):
        return True
    if hasattr(annotation, "__metadata__"):
        return _takes_bool(annotation.__origin__)
    return any(_takes_bool(a) or isinstance(a, bool) for a in typing.get_args(annotation))
