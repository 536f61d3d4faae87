"""What is left of main memory, by the files in which Linux says so."""

from pathlib import Path

from dreamfusion import memory

GIGABYTE = 2**30


def machine(root: Path, available: int, swap: int = 0) -> Path:
    (root / "proc" / "self").mkdir(parents=True)
    (root / "proc" / "meminfo").write_text(
        f"MemTotal: 1 kB\nMemAvailable: {available // 1024} kB\nHugePages_Total: 0\nSwapFree: {swap // 1024} kB\n"
    )
    return root


def group(root: Path, line: str, **files: object) -> None:
    """A control group by its line in /proc/self/cgroup, and its files."""
    (root / "proc" / "self" / "cgroup").write_text(f"{line}\n")
    where = root / "sys" / "fs" / "cgroup" / line.split(":", 2)[2].lstrip("/")
    where.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (where / name.replace("__", ".")).write_text(f"{content}\n")


def test_a_machine_says_what_is_left_with_its_swap(tmp_path):
    assert memory.available(machine(tmp_path, 3 * GIGABYTE, GIGABYTE)) == 4 * GIGABYTE


def test_a_system_that_does_not_say_is_not_guessed(tmp_path):
    assert memory.available(tmp_path) is None


def test_a_group_may_allow_less(tmp_path):
    """The limit less what is used, but for files that the system takes back first; "max" is no limit."""
    machine(tmp_path, 8 * GIGABYTE)
    used = {"memory__current": 2 * GIGABYTE, "memory__stat": f"anon 1\ninactive_file {GIGABYTE}"}
    group(tmp_path, "0::/", memory__max=5 * GIGABYTE, **used)
    assert memory.available(tmp_path) == 4 * GIGABYTE
    group(tmp_path, "0::/", memory__max="max", **used)
    assert memory.available(tmp_path) == 8 * GIGABYTE


def test_a_group_is_bound_by_those_above_it(tmp_path):
    machine(tmp_path, 8 * GIGABYTE)
    group(tmp_path, "0::/jobs", memory__max=3 * GIGABYTE, memory__current=GIGABYTE)
    group(tmp_path, "0::/jobs/one", memory__max=6 * GIGABYTE, memory__current=GIGABYTE)
    assert memory.available(tmp_path) == 2 * GIGABYTE


def test_groups_of_the_first_version_count_too(tmp_path):
    machine(tmp_path, 8 * GIGABYTE)
    group(tmp_path, "4:memory:/memory/job")
    where = tmp_path / "sys" / "fs" / "cgroup" / "memory" / "job"
    where.mkdir(parents=True, exist_ok=True)
    (tmp_path / "proc" / "self" / "cgroup").write_text("5:cpu:/x\n4:memory:/job\n")
    (where / "memory.limit_in_bytes").write_text(f"{2 * GIGABYTE}\n")
    (where / "memory.usage_in_bytes").write_text(f"{GIGABYTE}\n")
    (where / "memory.stat").write_text(f"total_inactive_file {GIGABYTE // 2}\n")
    assert memory.available(tmp_path) == GIGABYTE * 3 // 2


def test_this_machine_has_some_left():
    left = memory.available()
    assert left is None or left > 0
