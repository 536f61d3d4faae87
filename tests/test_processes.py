"""Several processes, as torchrun starts them, do the step of one."""

import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from dreamfusion import generate
from dreamfusion.config.distill import DistillConfig, VsdLaw
from dreamfusion.diffusion.priors import ViewCondition
from dreamfusion.distributed import SINGLE_PROCESS, ProcessGroup, ShardedPrior, init_process_group
from dreamfusion.errors import UserError
from dreamfusion.lights import albedo_only
from dreamfusion.loop import start
from team_runs import outcome

HERE = Path(__file__).parent


def team_of(size: int, command: list[str]) -> list[subprocess.Popen]:
    """Start the processes with torchrun's variables."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    sizes = {"WORLD_SIZE": str(size), "LOCAL_WORLD_SIZE": str(size)}
    shared = sizes | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    shared["PYTHONPATH"] = os.pathsep.join([str(HERE), str(HERE.parent / "src")])
    ranks = ({"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(size))
    return [subprocess.Popen([sys.executable, *command], env={**os.environ, **shared, **rank}) for rank in ranks]


@pytest.fixture(scope="module")
def alone():
    """What one process with four views does."""
    return outcome(SINGLE_PROCESS)


@pytest.mark.timeout(400)
@pytest.mark.parametrize("size", [2, 4])
def test_a_team_with_four_views_in_all_is_one_process_with_four(size, alone, tmp_path):
    group = team_of(size, [str(HERE / "team_runs.py"), str(tmp_path)])
    assert [process.wait(300) for process in group] == [0] * size
    first, *others = [load_file(tmp_path / f"{rank}.safetensors") for rank in range(size)]
    assert first.keys() == alone.keys()
    for name, expected in alone.items():
        if not name.endswith(".numbers"):  # a process counts what it rendered itself
            assert all(torch.equal(first[name], other[name]) for other in others), f"processes differ in {name}"
        if name.startswith("preconditioned.") and expected.is_floating_point():
            # inverse roots of nearly empty directions magnify rounding
            assert (first[name] - expected).norm() < 0.03 * expected.norm() + 1e-3, name
        else:
            scale = expected.float().abs().max().item()
            assert torch.allclose(first[name].float(), expected.float(), rtol=1e-3, atol=2e-5 * scale), name


def test_shares_are_equal_parts_in_order():
    assert [ProcessGroup(rank, 2).shard(4) for rank in range(2)] == [slice(0, 2), slice(2, 4)]
    assert SINGLE_PROCESS.shard(4) is None


def test_views_that_cannot_be_shared_are_refused(tiny_paper):
    with pytest.raises(UserError, match="--views 4 cannot be shared equally by 3"):
        start(tiny_paper, torch.device("cpu"), ProcessGroup(0, 3))


@pytest.fixture
def learning_folder(tiny_config, tmp_path):
    """Of a run of VSD that was begun in one process."""
    config = replace(tiny_config, prompt="a red chair", views=2, device="cpu", distill=DistillConfig(VsdLaw()))
    generate.create_run(config, tmp_path / "run")
    return tmp_path / "run"


def test_a_law_that_learns_is_refused_in_several_processes_also_when_resumed(learning_folder, tmp_path):
    config, path = generate.config_of(learning_folder), learning_folder
    for door in (
        lambda: generate.create_run(config, tmp_path / "other", ProcessGroup(0, 2)),
        lambda: generate.resume_run(path, "cpu", group=ProcessGroup(0, 2)),
        lambda: generate.run_worker(replace(generate.open_run(path, "cpu")[1], group=ProcessGroup(1, 2))),
    ):
        with pytest.raises(UserError, match="vsd learns from all views at once"):
            door()
    assert not (tmp_path / "other").exists()


def test_without_torchrun_a_process_is_alone(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    group = init_process_group(torch.device("cpu"))
    assert group is SINGLE_PROCESS
    assert group.is_main
    x = torch.arange(3.0)
    assert group.all_gather(x) is x
    group.all_reduce_mean([x])
    group.barrier()
    group.close()
    assert torch.equal(x, torch.arange(3.0))


def test_a_shared_prior_evaluates_its_rows_only(disc_prior):
    asked = []

    class Half(ProcessGroup):
        def all_gather(self, part):
            asked.append(part)
            return torch.cat([part, part])

    prior = ShardedPrior(disc_prior, Half(1, 2))
    noisy = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    text = disc_prior.embed(["a ball"] * 4)
    known = ViewCondition(pose=torch.eye(4).expand(4, 4, 4), background=torch.zeros(4, 3), light=albedo_only(4))
    t = torch.tensor([10, 100, 500, 900])
    prior.predict_noise(noisy, t, text, known)
    assert torch.allclose(asked[0], disc_prior.predict_noise(noisy, t, text, known)[2:])
    for name in ("name", "schedule", "image_size", "view_words", "conditions", "vocabulary"):
        assert getattr(prior, name) == getattr(disc_prior, name)
