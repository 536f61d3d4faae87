"""Frozen records of tensors (dataclasses and tuples, one in another), changed tensor by tensor."""

from collections.abc import Callable, Sequence
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

Record = TypeVar("Record")


def mapped(record: Record, change: Callable[[Tensor], Tensor]) -> Record:
    """The same record with `change` of each of its tensors, in the order of its fields; all else stays as it is."""
    return _mapped(record, change)


def _mapped(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, tuple):
        return tuple(_mapped(item, change) for item in value)
    if is_dataclass(value):
        return type(value)(**{field.name: _mapped(getattr(value, field.name), change) for field in fields(value)})
    return value


def tensors_of(record: object) -> list[Tensor]:
    """All tensors of a record, in the order of `mapped`."""
    found: list[Tensor] = []
    mapped(record, lambda tensor: found.append(tensor) or tensor)
    return found


def with_tensors(record: Record, tensors: Sequence[Tensor]) -> Record:
    """The same record with other tensors, in the order of `tensors_of`."""
    each = iter(tensors)
    return mapped(record, lambda _: next(each))


def concatenated(parts: Sequence[Record]) -> Record:
    """Records of the same fields as one: each tensor along its first axis; what is no tensor is the first one's."""
    columns = zip(*map(tensors_of, parts), strict=True)
    return with_tensors(parts[0], [torch.cat(column) for column in columns])
