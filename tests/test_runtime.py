"""Cores, quotas of containers, and work side by side."""

import os
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from dreamfusion import build, runtime
from dreamfusion.config import MlpFieldConfig
from dreamfusion.config.presets import preset
from dreamfusion.diffusion.priors import ViewCondition, open_prior

CPU = torch.device("cpu")


def control_groups(folder: Path, listing: str, files: dict[str, str]) -> float | None:
    """The quota of a machine whose control groups are these."""
    (folder / "cgroup").write_text(listing)
    for name, content in files.items():
        (folder / "fs" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "fs" / name).write_text(content)
    return runtime.cpu_quota(folder / "cgroup", folder / "fs")


@pytest.mark.parametrize(
    ("listing", "files", "quota"),
    [
        ("0::/\n", {"cpu.max": "max 100000\n"}, None),
        ("0::/\n", {"cpu.max": "400000 100000\n"}, 4.0),
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000\n", "a/cpu.max": "150000 100000\n"}, 1.5),
        ("0::/a/b\n", {"a/b/cpu.max": "50000 100000\n", "a/cpu.max": "150000 100000\n"}, 0.5),
        ("0::/host/path\n", {"cpu.max": "200000 100000\n"}, 2.0),
        ("3:cpuset:/\n1:cpu,cpuacct:/d\n0::/\n", {"cpu,cpuacct/d/cpu.cfs_quota_us": "300000\n",
         "cpu,cpuacct/d/cpu.cfs_period_us": "100000\n"}, 3.0),
        ("1:cpu:/\n", {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ("2:cpuset:/\n", {"cpuset/cpu.cfs_quota_us": "100000\n", "cpuset/cpu.cfs_period_us": "100000\n"}, None),
        ("0::/\n", {"cpu.max": "nonsense\n"}, None),
        ("0::/\n", {"cpu.max": "100000 0\n"}, None),
        ("no control groups\n", {"cpu.max": "100000 100000\n"}, None),
        ("0::/\n", {}, None),
    ],
)  # fmt: skip
def test_the_quota_of_a_container_counts(tmp_path, listing, files, quota):
    assert control_groups(tmp_path, listing, files) == quota


@pytest.mark.parametrize(
    ("affinity", "quota", "cores"), [(8, None, 8), (64, 4.0, 4), (2, 4.0, 2), (8, 1.5, 1), (8, 0.2, 1)]
)
def test_cores_are_the_least_of_affinity_and_quota(monkeypatch, affinity, quota, cores):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(affinity)), raising=False)
    monkeypatch.setattr(runtime, "cpu_quota", lambda: quota)
    monkeypatch.setattr(runtime, "_slurm_share", lambda: None)
    assert runtime.available_cores() == cores


@pytest.mark.parametrize(
    ("told", "cores"),
    [
        ({"SLURM_CPUS_PER_TASK": "4", "SLURM_CPUS_ON_NODE": "12"}, 4),  # three tasks on this node
        ({"SLURM_CPUS_ON_NODE": "2"}, 2),
        ({"SLURM_CPUS_PER_TASK": "64"}, 8),
        ({"SLURM_CPUS_PER_TASK": "many"}, 8),
        ({"SLURM_JOB_ID": "7"}, 8),
    ],
)
def test_a_slurm_job_takes_no_more_than_its_share(monkeypatch, told, cores):
    """Where Slurm does not bind tasks to cores, a job's affinity is the whole node."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setattr(runtime, "cpu_quota", lambda: None)
    for name in ("SLURM_CPUS_PER_TASK", "SLURM_CPUS_ON_NODE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    assert runtime.available_cores() == cores


def test_a_machine_without_control_groups_has_no_quota(tmp_path):
    assert runtime.cpu_quota(tmp_path / "nothing", tmp_path) is None


@pytest.mark.parametrize("cores", [1, 2, 8, 64])
def test_more_cores_never_mean_more_threads_than_help(monkeypatch, cores):
    """Short operators stay in one thread on any machine: only what needs no barrier gets further cores, at most one."""
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    monkeypatch.setattr(runtime, "available_cores", lambda: cores)
    fast = preset("fast")
    assert build.threads(fast, CPU) == build.Threads(each=1, side=min(cores, 2))
    assert build.threads(replace(fast, threads=1), CPU) == build.Threads(1, 1)
    assert build.threads(replace(fast, prior="models/sd"), CPU) == build.Threads(cores, 1)
    assert build.threads(replace(fast, scene=replace(fast.scene, field=MlpFieldConfig())), CPU) == build.Threads(
        cores, 1
    )
    assert build.threads(fast, torch.device("cuda")) == build.Threads(cores, 1)


def test_processes_of_a_team_share_the_cores(monkeypatch):
    monkeypatch.setattr(runtime, "available_cores", lambda: 8)
    torchrun = {"RANK": 0, "WORLD_SIZE": 3, "LOCAL_RANK": 0, "LOCAL_WORLD_SIZE": 3, "MASTER_PORT": 29500}
    for name, value in torchrun.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setenv("MASTER_ADDR", "localhost")
    assert build.threads(replace(preset("fast"), prior="models/sd"), CPU).each == 2


def test_calls_run_in_threads_of_their_own_and_keep_their_order():
    meet = threading.Barrier(3, timeout=10)  # passes only if all three are under way at once

    def call(number):
        meet.wait()
        return number, threading.get_ident()

    results = runtime.side_by_side([lambda number=number: call(number) for number in range(3)])
    assert [number for number, _ in results] == [0, 1, 2]
    assert len({thread for _, thread in results}) == 3
    assert results[0][1] == threading.get_ident()


@pytest.mark.parametrize("graded", [True, False])
def test_gradients_are_on_where_the_caller_has_them_on(graded):
    with torch.set_grad_enabled(graded):
        assert runtime.side_by_side([torch.is_grad_enabled] * 3) == [graded] * 3


@pytest.mark.parametrize("where", [0, 1])
def test_an_error_is_raised_when_all_calls_have_ended(where):
    ended = threading.Event()

    def fail():
        raise ValueError("no")

    calls = [fail, ended.set] if where == 0 else [ended.set, fail]
    with pytest.raises(ValueError, match="no"):
        runtime.side_by_side(calls)
    assert ended.is_set()


def test_each_thread_computes_alone():
    assert runtime.side_by_side([torch.get_num_threads] * 3)[1:] == [1, 1]


def test_denormal_numbers_are_zero_in_every_thread():
    before = torch.tensor(1e-40) * 1.0 != 0
    torch.set_flush_denormal(True)
    try:
        assert runtime.side_by_side([lambda: float(torch.tensor(1e-38) * 1e-2)] * 3) == [0.0] * 3
    finally:
        torch.set_flush_denormal(not before)


@torch.no_grad()
def test_a_prior_answers_the_same_in_parts_side_by_side():
    """Up to rounding, as libraries sum in another order for other sizes; and bit for bit whenever it is asked again."""
    whole = open_prior("embedded")
    draw = torch.Generator().manual_seed(0)
    noisy, t = torch.randn(5, 3, 64, 64, generator=draw), torch.tensor([100, 300, 500, 700, 900])
    text = whole.embed(["a red chair", "", "a car", "a frog", "a hamburger"])
    known = ViewCondition(pose=torch.eye(4).repeat(5, 1, 1) + 0.1, background=torch.rand(5, 3, generator=draw))
    expected = whole.predict_noise(noisy, t, text, known)
    for side in (2, 3):
        parts = replace(whole, side=side)
        found = parts.predict_noise(noisy, t, text, known)
        assert torch.allclose(found, expected, atol=1e-4)
        assert torch.equal(found, parts.predict_noise(noisy, t, text, known))
    assert torch.equal(replace(whole, side=8).predict_noise(noisy, t, text, known), expected)  # fewer rows than parts
