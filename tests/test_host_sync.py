"""On a GPU a step must not wait for the device: whatever brings numbers to the host is named here, or fails."""

import traceback
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import dreamfusion
from dreamfusion.diffusion.priors import open_prior
from dreamfusion.loop import advance, prompt_table, start

PACKAGE = Path(dreamfusion.__file__).parent
OUTSIDE = ("", "")

WAITS = {
    "aten._local_scalar_dense.default",  # .item(), float(), bool(), int() of a tensor
    "aten.nonzero.default",
    "aten.masked_select.default",
    "aten.equal.default",
    "aten._unique2.default",
    "aten.repeat_interleave.Tensor",
    "aten._linalg_eigh.default",  # waits inside, says its documentation
}
"""operators whose result's size or value the host must know"""

INDEXED = (torch.ops.aten.index, torch.ops.aten.index_put, torch.ops.aten.index_put_, torch.ops.aten._index_put_impl_)
"""waiting if the index is a mask"""

ALLOWED = {
    ("geometry.py", "look_at"): "cameras are drawn on the CPU and then moved",
    ("lights.py", "__call__"): "so are lights",
    ("sampling.py", "sample_rays"): "packing: rays that pass by all matter cost nothing",
    ("sampling.py", "_child"): "a seed, drawn on the CPU",
    ("sampling.py", "prune_empty"): "packing: samples in empty space cost nothing",
    ("sampling.py", "__getitem__"): "packing: samples that nobody sees cost nothing (twice a step)",
    ("loop.py", "_update"): "the step's numbers, read once, to stop before an infinity reaches the parameters",
}


class Watch(TorchDispatchMode):
    """Notes the function of the package that waits."""

    def __init__(self):
        super().__init__()
        self.waited = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        boolean_index = func.overloadpacket in INDEXED and any(
            index is not None and index.dtype == torch.bool for index in args[1]
        )
        if str(func) in WAITS or boolean_index:
            self.note()
        return func(*args, **(kwargs or {}))

    def note(self):
        frames = [frame for frame in traceback.extract_stack() if Path(frame.filename).is_relative_to(PACKAGE)]
        self.waited.append((Path(frames[-1].filename).name, frames[-1].name) if frames else OUTSIDE)


@pytest.fixture
def watch(monkeypatch):
    """Also sees what is read without an operator."""
    watch = Watch()

    def noting(read):
        def noted(*args, **kwargs):
            watch.note()
            return read(*args, **kwargs)

        return noted

    for name in ("tolist", "cpu", "numpy"):
        monkeypatch.setattr(torch.Tensor, name, noting(getattr(torch.Tensor, name)))
    return watch


@pytest.mark.parametrize("prior", ["gaussian", "embedded"])
def test_a_step_waits_for_the_device_only_where_it_says_why(prior, tiny_config, disc_prior, watch):
    judge = disc_prior if prior == "gaussian" else open_prior("embedded")
    config = tiny_config if prior == "gaussian" else replace(tiny_config, prompt="a hamburger", steps=3)
    run, prompts = start(config, torch.device("cpu")), prompt_table(config, judge)
    with watch:
        for _ in range(config.steps):
            advance(run, judge, prompts)
    assert set(watch.waited) == set(ALLOWED)
    assert watch.waited.count(("loop.py", "_update")) == config.steps
    packing = sum(file == "sampling.py" and name != "_child" for file, name in watch.waited)
    assert packing <= 4 * config.steps


def test_the_papers_step_waits_nowhere_else(tiny_paper, disc_prior, watch):
    config = replace(tiny_paper, steps=2, light=replace(tiny_paper.light, albedo_until=0.0))
    run, prompts = start(config, torch.device("cpu")), prompt_table(config, disc_prior)
    with watch:
        for _ in range(config.steps):
            advance(run, disc_prior, prompts)
    ours = set(watch.waited)
    assert ours - set(ALLOWED) == {
        ("shampoo.py", "_update"),  # its count of steps, which lies on the CPU
        ("shampoo.py", "inverse_root"),  # one for each side of each block; --optimise.shampoo.every makes them rarer
    }


def test_the_watch_sees_what_it_must(watch):
    x = torch.arange(4.0)
    waits = [x.sum().item, x.nonzero, lambda: x[x > 1], x.tolist, x.cpu, lambda: bool(x.any())]
    waits.append(lambda: x.__setitem__(x > 1, torch.zeros(2)))
    with watch:
        for count, wait in enumerate(waits, start=1):
            wait()
            assert watch.waited == [OUTSIDE] * count
