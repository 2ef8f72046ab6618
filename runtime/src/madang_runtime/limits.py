"""Enforces the `(madang.common.v1.limits)` options of the protos.

The checks of a message type are compiled once, when its RPC is registered. Lists are checked whole
(`max(map(len, ids))`), not element by element in nested calls.
"""

import math
import re
from collections.abc import Callable
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from madang.common.v1 import limits_pb2
from madang_runtime.errors import invalid

Check = Callable[[Message, str], None]
_NO_LIMITS = limits_pb2.Limits()


def compile_limits(
    descriptor: Descriptor, seen: dict[str, list[Check]] | None = None
) -> list[Check]:
    """Compile the checks of a message type.

    Each check takes the message and the path prefix of its fields ("" at the top).

    Raises (from the checks):
        MadangError: INVALID_ARGUMENT, FIELD_INVALID, naming the field by its path.
    """
    seen = {} if seen is None else seen
    if descriptor.full_name in seen:  # a recursive type refers to its own list
        return seen[descriptor.full_name]
    checks = seen[descriptor.full_name] = []
    for field in descriptor.fields:
        options = field.GetOptions()
        limits = (
            options.Extensions[limits_pb2.limits]
            if options.HasExtension(limits_pb2.limits)
            else _NO_LIMITS
        )
        checks += _field_checks(field, limits)
        if field.message_type and not field.message_type.full_name.startswith("google."):
            nested = compile_limits(field.message_type, seen)
            if nested or field.message_type.full_name == descriptor.full_name:
                checks.append(_descend(field, nested))
    return checks


def _field_checks(field: FieldDescriptor, limits: limits_pb2.Limits) -> list[Check]:
    checks: list[Check] = []
    if limits.required:
        checks.append(_required(field))
    if limits.min_items or limits.max_items:
        checks.append(_items(field.name, limits.min_items, limits.max_items))
    if limits.max_len:
        checks.append(_length(field, limits.max_len))
    if limits.HasField("gte") or limits.HasField("lte"):
        low = limits.gte if limits.HasField("gte") else float("-inf")
        high = limits.lte if limits.HasField("lte") else float("inf")
        checks.append(_range(field, low, high))
    if limits.pattern:
        checks.append(_pattern(field.name, limits.pattern))
    if limits.defined or limits.known:
        checks.append(_named(field, limits.known))
    return checks


def _required(field: FieldDescriptor) -> Check:
    name, is_message = field.name, field.message_type is not None

    def check(message: Message, path: str) -> None:
        if not (message.HasField(name) if is_message else getattr(message, name)):
            raise invalid(path + name, "is required")

    return check


def _items(name: str, least: int, most: int) -> Check:
    def check(message: Message, path: str) -> None:
        n = len(getattr(message, name))
        if n < least:
            raise invalid(path + name, f"has {n} items, needs at least {least}")
        if most and n > most:
            raise invalid(path + name, f"has {n} items, at most {most} are allowed")

    return check


def _length(field: FieldDescriptor, most: int) -> Check:
    name = field.name

    def check_one(message: Message, path: str) -> None:
        if len(getattr(message, name)) > most:
            raise invalid(path + name, f"is longer than {most}")

    def check_all(message: Message, path: str) -> None:
        values = getattr(message, name)[:]  # a list is walked in half the time
        lengths = set(map(len, values))
        if not lengths or 0 < min(lengths) <= max(lengths) <= most:
            return
        at, text = next((i, v) for i, v in enumerate(values) if not 0 < len(v) <= most)
        raise invalid(f"{path}{name}[{at}]", f"is longer than {most}" if text else "is empty")

    return check_all if field.is_repeated else check_one


def _range(field: FieldDescriptor, low: float, high: float) -> Check:
    name = field.name
    least, most = f"at least {low:g}", f"at most {high:g}"
    if math.isinf(low) or math.isinf(high):
        wanted = least if math.isinf(high) else most
    else:
        wanted = f"{least} and {most}"

    def check(message: Message, path: str) -> None:
        value = getattr(message, name)
        for element in value if field.is_repeated else (value,):
            if not low <= element <= high:  # false for NaN too
                raise invalid(path + name, f"is {element}, must be {wanted}")

    return check


def _pattern(name: str, pattern: str) -> Check:
    match = re.compile(pattern).fullmatch

    def check(message: Message, path: str) -> None:
        value = getattr(message, name)
        if value and not match(value):
            raise invalid(path + name, f"is {value!r}, must match {pattern}")

    return check


def _named(field: FieldDescriptor, unspecified: bool) -> Check:
    assert field.enum_type
    name, numbers = field.name, set(field.enum_type.values_by_number)
    if not unspecified:
        numbers -= {0}

    def check(message: Message, path: str) -> None:
        value = getattr(message, name)
        for element in value if field.is_repeated else (value,):
            if element not in numbers:
                raise invalid(path + name, f"is {element}, must be one of {sorted(numbers)}")

    return check


def _descend(field: FieldDescriptor, nested: list[Check]) -> Check:
    name = field.name

    def check_one(message: Message, path: str) -> None:
        if message.HasField(name):
            run_checks(nested, getattr(message, name), f"{path}{name}.")

    def check_all(message: Message, path: str) -> None:
        for i, element in enumerate(getattr(message, name)):
            run_checks(nested, element, f"{path}{name}[{i}].")

    return check_all if field.is_repeated else check_one


def run_checks(checks: list[Check], message: Any, path: str = "") -> None:
    """Run compiled checks on a message. Raises: MadangError, as `compile_limits` says."""
    for check in checks:
        check(message, path)
