"""Several processes, as torchrun starts them, do the step of one."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from dreamfusion.errors import UserError
from dreamfusion.lights import albedo_only
from dreamfusion.optimise import start
from dreamfusion.priors import Known
from dreamfusion.processes import ALONE, SharedPrior, Team, joined
from two_runs import outcome

HERE = Path(__file__).parent


def team_of(size: int, command: list[str]) -> list[subprocess.Popen]:
    """Start the processes with torchrun's variables."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    shared = {"WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    shared["PYTHONPATH"] = os.pathsep.join([str(HERE), str(HERE.parent / "src")])
    ranks = ({"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(size))
    return [subprocess.Popen([sys.executable, *command], env={**os.environ, **shared, **rank}) for rank in ranks]


@pytest.mark.timeout(400)
def test_two_processes_with_two_views_each_are_one_process_with_four(tmp_path):
    team = team_of(2, [str(HERE / "two_runs.py"), str(tmp_path)])
    alone = outcome(ALONE)
    assert [process.wait(300) for process in team] == [0, 0]
    for rank in range(2):
        found = load_file(tmp_path / f"{rank}.safetensors")
        assert found.keys() == alone.keys()
        for name, expected in alone.items():
            scale = expected.float().abs().max().item()
            assert torch.allclose(found[name].float(), expected.float(), rtol=1e-3, atol=2e-5 * scale), name


def test_shares_are_equal_parts_in_order():
    assert [Team(rank, 2).share(4) for rank in range(2)] == [slice(0, 2), slice(2, 4)]
    assert ALONE.share(4) is None


def test_views_that_cannot_be_shared_are_refused(tiny_paper):
    with pytest.raises(UserError, match="--views 4 cannot be shared equally by 3"):
        start(tiny_paper, torch.device("cpu"), Team(0, 3))


def test_without_torchrun_a_process_is_alone(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    team = joined(torch.device("cpu"))
    assert team is ALONE
    assert team.leads
    x = torch.arange(3.0)
    assert team.gathered(x) is x
    team.average([x])
    team.wait()
    team.part()
    assert torch.equal(x, torch.arange(3.0))


def test_a_shared_prior_evaluates_its_rows_only(disc_prior):
    asked = []

    class Half(Team):
        def gathered(self, part):
            asked.append(part)
            return torch.cat([part, part])

    prior = SharedPrior(disc_prior, Half(1, 2))
    noisy = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    text = disc_prior.embed(["a ball"] * 4)
    known = Known(pose=torch.eye(4).expand(4, 4, 4), background=torch.zeros(4, 3), light=albedo_only(4))
    t = torch.tensor([10, 100, 500, 900])
    prior.predict_noise(noisy, t, text, known)
    assert torch.allclose(asked[0], disc_prior.predict_noise(noisy, t, text, known)[2:])
    for name in ("name", "schedule", "image_size", "view_words", "conditions", "vocabulary"):
        assert getattr(prior, name) == getattr(disc_prior, name)
