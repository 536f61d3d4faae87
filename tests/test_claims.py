"""Names and folders belong to one process at a time, also when they die and where disks know no locks."""

import errno
import json
import multiprocessing
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from dreamfusion import claims
from dreamfusion.claims import new_files, new_folder, owned
from dreamfusion.errors import UserError
from dreamfusion.runs import LOCK

HOLDER = """
import sys
from pathlib import Path
from dreamfusion.claims import owned
with owned(Path(sys.argv[1])):
    print("mine", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that owns the folder `held`, until it is told to end or killed."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path / "held")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "mine\n"
    yield process
    process.kill()
    process.communicate()


def test_the_second_process_is_told_who_owns_the_folder(holder, tmp_path):
    message = rf"held is in use by process {holder.pid} on {platform.node()} since 20"
    with pytest.raises(UserError, match=message), owned(tmp_path / "held"):
        pass
    with pytest.raises(UserError, match="is in use by process"), new_folder(tmp_path / "held"):
        pass  # empty but for the lock, and yet not free
    assert json.loads((tmp_path / "held" / LOCK).read_text())["pid"] == str(holder.pid)  # readers read


def test_a_killed_process_leaves_no_lock_behind(holder, tmp_path):
    holder.kill()
    holder.wait()
    assert (tmp_path / "held" / LOCK).exists()  # the file, which nobody holds
    with owned(tmp_path / "held"):
        pass
    with new_folder(tmp_path / "held"):
        pass
    assert not (tmp_path / "held" / LOCK).exists()


def test_an_owner_that_leaves_takes_the_lock_along(holder, tmp_path):
    (tmp_path / "held" / "file").touch()
    holder.communicate("")
    assert [path.name for path in (tmp_path / "held").iterdir()] == ["file"]


def test_a_folder_is_owned_once_also_within_a_process(tmp_path):
    with owned(tmp_path), pytest.raises(UserError, match=f"process {os.getpid()}"), owned(tmp_path):
        pass


@pytest.mark.parametrize(
    ("words", "free"),
    [
        ({"pid": "999999999", "host": platform.node(), "since": "x"}, True),
        ({"pid": str(os.getppid()), "host": platform.node(), "since": "x"}, False),
        ({"pid": "1", "host": "elsewhere", "since": "x"}, False),
        ({"pid": "one"}, True),
        ([], True),
    ],
)
def test_on_disks_without_locks_the_words_count(tmp_path, monkeypatch, words, free):
    def unsupported(file):
        raise OSError(errno.ENOLCK, "no locks here")

    monkeypatch.setattr(claims, "_lock", unsupported)
    (tmp_path / LOCK).write_text(json.dumps(words))
    if free:
        with owned(tmp_path), pytest.raises(UserError, match="in use"), owned(tmp_path):
            pass
        assert not (tmp_path / LOCK).exists()
    else:
        with pytest.raises(UserError, match=f"in use by process {words['pid']} on {words['host']}"), owned(tmp_path):
            pass


def test_a_lock_file_that_goes_between_opening_and_locking_is_made_again(tmp_path, monkeypatch):
    """As when its owner leaves in that moment: what was locked then is no file any more."""
    lock, left = claims._lock, [tmp_path / LOCK]

    def leaving(file):
        while left:
            left.pop().unlink()
        lock(file)

    monkeypatch.setattr(claims, "_lock", leaving)
    with owned(tmp_path):
        assert (tmp_path / LOCK).exists()


def claim_many(place: str, count: int, queue) -> None:
    for _ in range(count):
        with new_folder(Path(place), or_next=True) as folder:
            (folder / "own").touch()
            queue.put(str(folder))


def test_processes_that_start_together_get_different_folders(tmp_path):
    context = multiprocessing.get_context("spawn")
    queue = context.SimpleQueue()
    group = [context.Process(target=claim_many, args=(str(tmp_path / "a-chair-0"), 10, queue)) for _ in range(3)]
    for process in group:
        process.start()
    places = [queue.get() for _ in range(30)]
    for process in group:
        process.join()
    assert len(set(places)) == 30
    assert {Path(place).name for place in places} == {"a-chair-0", *(f"a-chair-0-{copy}" for copy in range(1, 30))}


def test_a_claimed_folder_that_stays_empty_goes_with_its_parents(tmp_path):
    def fail(place: Path) -> None:
        with new_folder(place):
            assert place.is_dir()
            raise UserError("the prior is none")

    with pytest.raises(UserError, match="the prior is none"):
        fail(tmp_path / "runs" / "deep" / "a")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "there").mkdir()
    with pytest.raises(UserError, match="the prior is none"):
        fail(tmp_path / "there")
    assert (tmp_path / "there").is_dir()  # it was not ours


@pytest.mark.parametrize("name", ["file", "file/below", "full"])
def test_a_place_that_is_taken_is_refused(tmp_path, name):
    (tmp_path / "file").touch()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").touch()
    with pytest.raises(UserError, match="choose another --out"), new_folder(tmp_path / name):
        pass


def test_new_files_are_claimed_until_they_are_written(tmp_path):
    with new_files([tmp_path / "a.png"], or_next=True) as [one], new_files([tmp_path / "a.png"], or_next=True) as [two]:
        two.write_text("picture")
    assert (one.name, two.name) == ("a.png", "a-1.png")
    assert [path.name for path in tmp_path.iterdir()] == ["a-1.png"]  # nothing came of the other
    with pytest.raises(UserError, match=r"a-1\.png exists"), new_files([tmp_path / "b.png", two]):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["a-1.png"]
