"""Results that are made again for their gradients."""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from dreamfusion.nerf.checkpointing import checkpointed

pytestmark = pytest.mark.processor


@dataclass(frozen=True)
class Pair:
    first: Tensor
    rest: tuple[Tensor, ...] = ()
    nothing: Tensor | None = None
    count: int = 3


def layer():
    generator = torch.Generator().manual_seed(0)
    made = nn.Linear(3, 3)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return made


def test_values_and_gradients_are_those_of_the_function_and_records_stay():
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(1))

    def compute(net):
        y = torch.tanh(net(x))
        return Pair(y, (y.argmax(-1), y.square())), y.sum()

    gradients = []
    for wrap in (lambda f: f(), checkpointed):
        net = layer()
        pair, total = wrap(lambda net=net: compute(net))
        assert isinstance(pair, Pair)
        assert (pair.nothing, pair.count, pair.rest[0].dtype) == (None, 3, torch.int64)
        (pair.first.sum() + 2 * pair.rest[1].sum() + 3 * total).backward()
        gradients.append([pair.first.detach(), *(p.grad for p in net.parameters())])
    assert all(torch.allclose(a, b) for a, b in zip(*gradients, strict=True))


def test_what_nobody_asks_gradients_of_is_not_made_again():
    net, calls = layer(), []

    def compute():
        calls.append(1)
        return (net(torch.ones(1, 3)),)

    (result,) = checkpointed(compute)
    assert len(calls) == 1
    result.sum().backward()
    assert len(calls) == 2
