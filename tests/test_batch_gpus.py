"""How the workers of a batch share GPUs. There need be none: what a worker may see is a variable of its environment."""

import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest

from batch_runs import befall
from dreamfusion.batch.drive import Drive, Rules, Tally, Workers, driving
from dreamfusion.batch.folder import BatchFolder
from dreamfusion.batch.local import LocalWorkers, visible_gpus
from dreamfusion.batch.watch import Watch
from dreamfusion.batch.worker import MakeRuns, Work
from dreamfusion.cli import batch
from dreamfusion.config import Config
from dreamfusion.errors import UserError
from test_batch_processes import item, until


@dataclass(frozen=True)
class Seen:
    """Runs that write down the GPUs their process sees, and end when so many have begun: all are under way at once."""

    log: Path
    begun: int

    def __call__(self) -> Work:
        return self.work

    def work(self, config: Config, path: Path, watch: Watch) -> bool:
        with self.log.open("a") as log:
            log.write(f"{config.prompt}:{os.environ.get('CUDA_VISIBLE_DEVICES')}:{os.getpid()}\n")
        befall(config.prompt, 5, path)
        until(lambda: len(self.log.read_text().splitlines()) >= self.begun)
        return True

    def lines(self) -> list[list[str]]:
        return [line.split(":") for line in self.log.read_text().splitlines()]


def drive(out: Path, prompts: list[str], workers: Workers) -> Tally:
    folder = BatchFolder(out)
    items = [item(folder, prompt) for prompt in prompts]
    with driving(folder, "1-of-1") as go:
        return Drive(folder, workers, Rules(), print)(iter(items), len(items), go, lambda: False)


def test_processes_spread_over_the_gpus_and_a_new_one_gets_that_of_the_dead(tmp_path):
    seen = Seen(tmp_path / "log", begun=5)
    with LocalWorkers(4, seen, ["5", "7"]) as workers:
        assert drive(tmp_path / "out", ["dies once", "a ball", "a car", "a frog"], workers) == Tally(4, made=4)
    assert sorted(f"{prompt} {gpu}" for prompt, gpu, _ in seen.lines()) == [
        "a ball 7", "a car 5", "a frog 7", "dies once 5", "dies once 5",
    ]  # fmt: skip
    assert len({process for *_, process in seen.lines()}) == 5


@pytest.mark.timeout(300)
@pytest.mark.parametrize("each", [2, 3])
def test_ray_divides_gpus(tmp_path, monkeypatch, ray_actors, each):
    """Bookkeeping of a cluster that is told of two GPUs: as many actors as fit, all at once, so many on each."""
    ray = pytest.importorskip("ray", reason="needs Ray")
    from dreamfusion.batch.on_ray import RayWorkers, Share

    init = ray.init
    monkeypatch.setattr(ray, "init", lambda **options: init(num_cpus=8, num_gpus=2, **options))
    seen = Seen(tmp_path / "log", begun=2 * each)
    with RayWorkers("", 0, Share(1, 1 / each), seen) as workers:
        assert workers.free == 2 * each
        prompts = [f"a ball of size {size}" for size in range(2 * each)]
        assert drive(tmp_path / "out", prompts, workers) == Tally(2 * each, made=2 * each)
    assert Counter(gpu for _, gpu, _ in seen.lines()) == {"0": each, "1": each}


def test_ray_says_that_there_are_no_gpus_or_that_it_does_not_start(monkeypatch):
    """With a stand-in of the cluster."""
    ray = pytest.importorskip("ray", reason="needs Ray")
    from dreamfusion.batch.on_ray import RayWorkers, Share

    monkeypatch.setattr(ray, "init", lambda **options: None)
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 8.0})
    with pytest.raises(UserError, match="--per-gpu divides GPUs, and the cluster has none"):
        RayWorkers("", 0, Share(1, 0.5), MakeRuns())
    assert RayWorkers("", 0, Share(1, 1.0), MakeRuns()).free == 8

    def late(**options: object) -> None:
        raise Exception("The current node timed out during startup.")

    monkeypatch.setattr(ray, "init", late)
    with pytest.raises(UserError, match="Ray did not start: The current node timed out"):
        RayWorkers("", 0, Share(1, 1.0), MakeRuns())


@pytest.mark.parametrize(
    ("device", "told", "found"),
    [
        ("auto", None, ["0", "1"]),
        ("cuda", "4,GPU-8932f937", ["4", "GPU-8932f937"]),  # by number or by name, as a scheduler gave them
        ("cuda:1", "4,5", [""]),
        ("mps", None, [""]),
        ("cpu", None, []),
    ],
)
def test_gpus_are_those_that_the_process_may_use(monkeypatch, device, told, found):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if told is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", told)
    assert visible_gpus(device) == found
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert visible_gpus("auto") == visible_gpus("cuda") == []


@pytest.mark.parametrize(
    ("gpus", "jobs", "per_gpu", "count"),
    [
        (["0", "1"], 0, 1, 2),
        (["0", "1"], 0, 3, 6),
        (["0", "1"], 1, 3, 1),
        ([""], 0, 2, 2),
        ([], 0, 1, 8),
        ([], 3, 1, 3),
    ],
)
def test_as_many_processes_as_fit_on_the_gpus_or_cores(monkeypatch, gpus, jobs, per_gpu, count):
    monkeypatch.setattr("dreamfusion.batch.local.visible_gpus", lambda device: gpus)
    monkeypatch.setattr("dreamfusion.runtime.available_cores", lambda: 8)
    assert hired(jobs=jobs, per_gpu=per_gpu).free == count


def test_gpus_that_are_not_there_cannot_be_divided(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(UserError, match="--per-gpu 2 divides GPUs, and there is none"):
        hired(jobs=0, per_gpu=2)


def hired(jobs: int, per_gpu: int) -> Workers:
    """The workers that the command would give orders to."""
    arguments = batch.Batch(Path("a.txt"), jobs=jobs, per_gpu=per_gpu)
    with batch._workers(arguments, MakeRuns(), Config(prompt="a ball")) as workers:
        return workers
