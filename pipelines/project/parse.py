"""Convert YAML values to annotated types; refuse other values in a sentence that says what is allowed."""

import math
import types
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from models.encoders import ENCODERS
from models.encoders.encoder import EncoderParams
from pipelines.project import ConfigError

# The largest whole number that a key takes, by the last part of its name; the smallest is 1. A larger number overflows
# in torch, or needs more memory or time than any machine has.
MOST = {
    **{"seed": 2**31 - 1, "seeds": 1000, "size": 4096, "processes": 1024, "log_every": 10**9},
    **{"epochs": 10**6, "steps": 10**9, "batch_size": 2**20, "accumulate": 2**20, "unlabelled": 1024},
    **{"width": 1024, "patch_size": 4096, "local_size": 4096, "local_crops": 128},
    **{"head_hidden": 2**16, "head_dim": 2**20, "head_bottleneck": 2**16},
    **{"decoder_dim": 2**13, "decoder_depth": 128, "decoder_heads": 1024},
    **{"shots": 10**6, "labels": 10**6, "label_samples": 1000, "neighbours": 10**6},
}
LARGE = 2**20  # the limit of every other key
FROM_ZERO = {"seed", "local_crops"}
LARGEST, SMALLEST = 1e30, 1e-30  # of all other numbers except 0: a 32-bit float holds them
TIMES = {"budget": 1000.0, "all_labels": 1000.0}  # factors by which steps are multiplied


def refused(key: str, value: Any, allowed: str) -> ConfigError:
    """The one form of message for a value that is not allowed."""
    sentence = f"{key} is {value}. Allowed: {allowed}."
    return ConfigError(f"Option {sentence}" if key.startswith("-") else f"Parameter {sentence}")


def convert(value: Any, kind: Any, key: str) -> Any:
    """A YAML value as the annotated type, or ConfigError with the key, the value and what is allowed."""
    origin = get_origin(kind)
    if kind is EncoderParams:
        return convert_encoder(value, key)
    if is_dataclass(kind):
        return convert_section(value, kind, key)
    if origin is Literal:
        if value in get_args(kind):
            return value
        raise refused(key, shown(value), ", ".join(map(str, get_args(kind))))
    if origin in (Union, types.UnionType):
        return convert_union(value, get_args(kind), key)
    if origin is tuple:
        return convert_tuple(value, get_args(kind), key)
    if origin is Mapping:
        return convert_mapping(value, get_args(kind)[1], key)
    if kind is Any:
        return value
    if kind is float:
        try:
            number = float("" if isinstance(value, bool) else value)
        except (TypeError, ValueError, OverflowError):
            number = math.nan
        if not math.isfinite(number):
            raise refused(key, shown(value), "a number")
        return sized(number, key)
    if (kind is int and isinstance(value, bool)) or not isinstance(value, kind):
        raise refused(key, shown(value), NAMES[kind])
    return whole(value, key) if kind is int else value


NAMES = {int: "a whole number", str: "a text", bool: "true or false"}


def whole(number: int, key: str) -> int:
    """Return the number. Raises ConfigError when it is outside of what can be computed."""
    word = key.rpartition(".")[2].partition("[")[0]
    least, most = int(word not in FROM_ZERO), MOST.get(word, LARGE)
    if not least <= number <= most:
        raise refused(key, shown(number), f"a whole number from {least} to {most}")
    return number


def sized(number: float, key: str) -> float:
    """The same for a number that need not be whole."""
    most = TIMES.get(key.rpartition(".")[2], LARGEST)
    if number and not SMALLEST <= abs(number) <= most:
        raise refused(key, repr(number), f"0, or a number of a size from {SMALLEST:g} to {most:g}")
    return number


def shown(value: Any) -> str:
    """A value for a message; a long one is cut."""
    text = hex(value) if isinstance(value, int) and abs(value) > 10**99 else repr(value)
    return text if len(text) <= 100 else f"{text[:100]}…"


def convert_section(value: Any, kind: Any, key: str) -> Any:
    if not isinstance(value, Mapping):
        raise refused(key, shown(value), "a section of keys")
    hints = get_type_hints(kind)
    own_first = sorted(fields(kind), key=lambda f: f.kw_only is True)
    known = {f.name.rstrip("_"): f for f in own_first}  # `for_` is `for`, which Python keeps for itself
    prefix = f"{key}." if key else ""
    for k in value:
        if k not in known:
            raise ConfigError(f"There is no parameter {prefix}{str(k)[:100]}. Allowed: {', '.join(known)}.")
    for k, f in known.items():
        if k not in value and f.default is MISSING and f.default_factory is MISSING:
            raise ConfigError(f"Parameter {prefix}{k} is missing.")
    converted = {known[k].name: convert(v, hints[known[k].name], f"{prefix}{k}") for k, v in value.items()}
    try:
        return kind(**converted)
    except ValueError as e:
        raise ConfigError(f"Parameter {prefix}{str(e).rstrip('.')}.") from None


def convert_union(value: Any, kinds: tuple[Any, ...], key: str) -> Any:
    if value is None and types.NoneType in kinds:
        return None
    kinds = tuple(k for k in kinds if k is not types.NoneType)
    if len(kinds) == 1:
        return convert(value, kinds[0], key)
    if kinds[0] is int:  # or a literal
        if value in get_args(kinds[1]):
            return value
        if isinstance(value, int) and not isinstance(value, bool):
            return whole(value, key)
        raise refused(key, shown(value), f"a whole number, or {', '.join(get_args(kinds[1]))}")
    if get_origin(kinds[0]) is Literal:  # literals, or a list
        if isinstance(value, list):
            return convert(value, kinds[1], key)
        words = ", ".join(map(str, get_args(kinds[0])))
        if value in get_args(kinds[0]):
            return value
        raise refused(key, repr(value), f"{words}, or a list")
    raise TypeError(f"{key} has a type that no value can have: {kinds}")


def convert_encoder(value: Any, key: str) -> Any:
    """An encoder's parameters are of the kind that its `arch` names."""
    arch = value.get("arch") if isinstance(value, Mapping) else None
    if not isinstance(arch, str) or arch not in ENCODERS:
        raise refused(f"{key}.arch", shown(arch), ", ".join(ENCODERS))
    return convert_section(value, ENCODERS[arch], key)


def convert_mapping(value: Any, kind: Any, key: str) -> dict[str, Any]:
    """Any names, each with a value of this kind."""
    if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
        raise refused(key, shown(value), "a section of named values")
    return {name: convert(each, kind, f"{key}.{name}") for name, each in value.items()}


def convert_tuple(value: Any, kinds: tuple[Any, ...], key: str) -> Any:
    open_ended = kinds[-1] is Ellipsis
    if not isinstance(value, list) or (not open_ended and len(value) != len(kinds)):
        count = "" if open_ended else f" of {len(kinds)}"
        raise refused(key, shown(value), f"a list{count}")
    types_of = [kinds[0]] * len(value) if open_ended else kinds
    return tuple(convert(v, k, f"{key}[{i}]") for i, (v, k) in enumerate(zip(value, types_of, strict=True)))
