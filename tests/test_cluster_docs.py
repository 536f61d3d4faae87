"""The recipes of docs/cluster.md: what they tell a scheduler, and what their commands come to in a shell."""

import os
import re
import subprocess
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[1] / "docs" / "cluster.md").read_text(encoding="utf-8")


def recipe(beginning: str) -> str:
    """The block of the page that begins so."""
    return next(block for block in PAGE.split("```\n")[1::2] if block.startswith(beginning))


@pytest.fixture
def manifest():
    return pytest.importorskip("yaml", reason="needs PyYAML").safe_load(recipe("apiVersion"))


def shard_of(command: list[str], place: Path, **variables: str) -> list[str]:
    """What a command would make, run in a shell with a stand-in of the program that says its arguments."""
    program = place / "dreamfusion"
    program.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    program.chmod(0o755)
    path = os.pathsep.join([str(place), os.environ["PATH"]])
    said = subprocess.run(command, env={"PATH": path, **variables}, check=True, capture_output=True, text=True).stdout
    return said.splitlines()


@pytest.mark.skipif(os.name == "nt", reason="needs a shell")
def test_every_index_of_the_job_makes_its_own_shard(manifest, tmp_path):
    job = manifest["spec"]
    [container] = job["template"]["spec"]["containers"]
    made = [
        shard_of(container["command"], tmp_path, JOB_COMPLETION_INDEX=str(n))[-1] for n in range(job["completions"])
    ]
    assert made == [f"{n}/{job['completions']}" for n in range(1, job["completions"] + 1)]


@pytest.mark.skipif(os.name == "nt", reason="needs a shell")
def test_every_task_of_the_array_makes_its_own_shard(tmp_path):
    script = recipe("#SBATCH")
    [(first, last)] = re.findall(r"--array=(\d+)-(\d+)", script)
    tasks = {"SLURM_ARRAY_TASK_ID": last, "SLURM_ARRAY_TASK_COUNT": last}  # the count, as the first is 1
    assert shard_of(["sh", "-c", script], tmp_path, **tasks)[-2:] == ["--shard", f"{last}/{last}"]
    assert first == "1"


def test_the_job_is_what_a_cluster_takes(manifest):
    """By the schema that the API server publishes, unknown names refused."""
    job = pytest.importorskip("kubernetes", "37", reason="needs the models of package kubernetes").client.V1Job
    checked = job.model_validate(manifest)
    assert checked.spec.completion_mode == "Indexed"
    assert checked.spec.pod_failure_policy.rules[1].on_exit_codes.values == [1]
    with pytest.raises(ValueError, match="completion"):
        job.model_validate({**manifest, "spec": {**manifest["spec"], "completion": 3}})
