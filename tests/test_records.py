"""Records of tensors are changed as a whole, however deep they are."""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from dreamfusion.records import concatenated, mapped, tensors_of, with_tensors


@dataclass(frozen=True, eq=False)
class Inner:
    x: Tensor
    name: str = "inner"


@dataclass(frozen=True, eq=False)
class Outer:
    first: Tensor
    parts: tuple[Inner, ...]
    nothing: Tensor | None = None


def record(start: float) -> Outer:
    return Outer(torch.tensor([start]), (Inner(torch.tensor([start + 1])), Inner(torch.tensor([start + 2]), "last")))


def test_every_tensor_is_changed_in_order_and_nothing_else():
    changed = mapped(record(0.0), lambda tensor: 10 * tensor)
    assert torch.cat(tensors_of(changed)).tolist() == [0, 10, 20]
    assert [part.name for part in changed.parts] == ["inner", "last"]
    assert changed.nothing is None
    assert torch.cat(tensors_of(record(0.0))).tolist() == [0, 1, 2]


def test_tensors_go_back_where_they_came_from():
    whole = record(3.0)
    again = with_tensors(whole, tensors_of(whole))
    assert again.first is whole.first
    assert again.parts[1].x is whole.parts[1].x


def test_records_are_joined_tensor_by_tensor():
    joined = concatenated([record(0.0), record(5.0)])
    assert joined.first.tolist() == [0, 5]
    assert joined.parts[1].x.tolist() == [2, 7]
    with pytest.raises(ValueError, match="zip"):
        concatenated([record(0.0), Outer(torch.zeros(1), ())])
