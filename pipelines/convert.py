"""A YAML value as the annotated type, or one sentence that says what is allowed."""

import math
import types
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints


class ConfigError(Exception):
    """The key, its value and what would be allowed."""


def convert(value: Any, kind: Any, key: str) -> Any:
    """A YAML value as the annotated type, or ConfigError with the key, the value and what is allowed."""
    origin = get_origin(kind)
    if is_dataclass(kind):
        return convert_section(value, kind, key)
    if origin is Literal:
        if value in get_args(kind):
            return value
        raise ConfigError(f"{key} is {value!r}; allowed: {', '.join(map(str, get_args(kind)))}")
    if origin in (Union, types.UnionType):
        return convert_union(value, get_args(kind), key)
    if origin is tuple:
        return convert_tuple(value, get_args(kind), key)
    if kind is float:
        try:
            number = float("" if isinstance(value, bool) else value)
        except (TypeError, ValueError):
            number = math.nan
        if not math.isfinite(number):
            raise ConfigError(f"{key} is {value!r}; allowed: a number")
        return number
    if (kind is int and isinstance(value, bool)) or not isinstance(value, kind):
        raise ConfigError(f"{key} is {value!r}; allowed: {NAMES[kind]}")
    return value


NAMES = {int: "a whole number", str: "a text", bool: "true or false"}


def convert_section(value: Any, kind: Any, key: str) -> Any:
    name = key or "the file"
    if not isinstance(value, Mapping):
        raise ConfigError(f"{name} is {value!r}; allowed: a section of keys")
    hints = get_type_hints(kind)
    known = {f.name: f for f in fields(kind)}
    prefix = f"{key}." if key else ""
    for k in value:
        if k not in known:
            raise ConfigError(f"{prefix}{k} is not a known key; allowed: {', '.join(known)}")
    for k, f in known.items():
        if k not in value and f.default is MISSING:
            raise ConfigError(f"{prefix}{k} is missing")
    converted = {k: convert(v, hints[k], f"{prefix}{k}") for k, v in value.items()}
    try:
        return kind(**converted)
    except ValueError as e:
        raise ConfigError(f"{prefix}{e}") from None


def convert_union(value: Any, kinds: tuple[Any, ...], key: str) -> Any:
    if value is None and types.NoneType in kinds:
        return None
    kinds = tuple(k for k in kinds if k is not types.NoneType)
    if len(kinds) == 1:
        return convert(value, kinds[0], key)
    arch = value.get("arch") if isinstance(value, Mapping) else None  # the encoders: told apart by `arch`
    for k in kinds:
        if arch in get_args(get_type_hints(k)["arch"]):
            return convert(value, k, key)
    allowed = [a for k in kinds for a in get_args(get_type_hints(k)["arch"])]
    raise ConfigError(f"{key}.arch is {arch!r}; allowed: {', '.join(allowed)}")


def convert_tuple(value: Any, kinds: tuple[Any, ...], key: str) -> Any:
    open_ended = kinds[-1] is Ellipsis
    if not isinstance(value, list) or (not open_ended and len(value) != len(kinds)):
        count = "" if open_ended else f" of {len(kinds)}"
        raise ConfigError(f"{key} is {value!r}; allowed: a list{count}")
    types_of = [kinds[0]] * len(value) if open_ended else kinds
    return tuple(convert(v, k, f"{key}[{i}]") for i, (v, k) in enumerate(zip(value, types_of, strict=True)))
