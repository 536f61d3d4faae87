"""Batches in the studio: a collection each, followed in its directory, whoever works on it."""

import json
import os
import platform
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from batch_runs import Counted, done_steps
from dreamfusion.batch.drive import driving
from dreamfusion.batch.state import State as Standing
from dreamfusion.batch.state import States
from dreamfusion.claims import InUse, owned
from dreamfusion.studio import foreman, studio, worker
from dreamfusion.studio.batches import CHUNK, Followed
from dreamfusion.studio.order import in_order, places
from dreamfusion.studio.task import State, Task
from studio_parts import Client, batch_folder, events_of, fake_worker, studio_at
from test_studio import DESCRIPTION, breaks

__all__ = ["fake_worker"]
MADE = Standing("done", attempt=1, step=5, beat=1e9, seconds=60.0)
RUNS = {
    "a red fox": MADE,
    "a blue cat": Standing(),
    "a refused owl": Standing("failed", attempt=3, failures=3, error="the owl <b>diverged</b>"),
    "a refused hen": Standing("failed", attempt=1, failures=1, error="no hen"),
    "a fox in a box": MADE,
    "a half dog": Standing("stopped", attempt=1, step=3),
}


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Folders are looked at again at once."""
    monkeypatch.setattr(studio, "SCAN_SECONDS", 0.02)
    monkeypatch.setattr(studio, "LOOKING", 1.0)
    monkeypatch.setattr(foreman, "AGAIN_SECONDS", 0.05)


def the_batch(client: Client) -> dict[str, Any]:
    for _ in range(500):  # the studio answers before it has read what batches hold
        for task in client.get("/api/tasks").json["tasks"]:
            if task["kind"] == "batch":
                return task
        time.sleep(0.02)
    pytest.fail("there is none")


def runs_of(client: Client, query: str = "") -> list[dict[str, Any]]:
    return client.get(f"/api/tasks/{the_batch(client)['id']}/runs{query}").json["runs"]


def until(ready: Callable[[], bool]) -> None:
    for _ in range(500):
        if ready():
            return
        time.sleep(0.02)
    pytest.fail("it never came")


def test_a_batch_is_one_task_and_its_runs_are_none(tmp_path):
    batch_folder(tmp_path / "animals", RUNS)
    with studio_at(tmp_path) as client:
        task = the_batch(client)
        assert (task["kind"], task["prompt"], task["state"]) == ("batch", "animals", "CANCELED")
        assert (task["steps"], task["step"], task["progress"]) == (6, 2, 33)
        assert task["counts"] == {"aside": 1, "failed": 1, "stopped": 1, "done": 2, "waiting": 1}
        runs = runs_of(client)
        assert [run["status"] for run in runs] == ["aside", "failed", "stopped", "done", "done", "waiting"]
        assert (runs[0]["error"], runs[0]["failures"], runs[0]["line"]) == ("the owl <b>diverged</b>", 3, 3)
        assert [run["picture"] for run in runs] == [False, False, False, True, True, False]
        assert task["cover"] == [runs[3]["id"], runs[4]["id"]]
        assert client.get(f"/api/tasks/{runs[3]['id']}/files/preview.png").body == b"png"
        schema = DESCRIPTION["paths"]["/api/tasks/{id}/runs"]["get"]["responses"]["200"]["content"]["application/json"]
        answer = client.get(f"/api/tasks/{task['id']}/runs").json
        assert breaks(answer, schema["schema"]) == []
        for run, state in zip(runs, ("FAILED", "FAILED", "CANCELED", "SUCCEEDED", "SUCCEEDED", "PENDING"), strict=True):
            one = client.get(f"/api/tasks/{run['id']}").json
            assert breaks(one, {"$ref": "#/components/schemas/Task"}) == []
            assert (one["state"], one["prompt"], one["batch"]) == (state, run["prompt"], task["id"])
        assert client.get("/api/tasks").json["total"] == 1  # still


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("?query=fox", ["a red fox", "a fox in a box"]),
        ("?query=fox+box", ["a fox in a box"]),
        ("?query=seed:2", ["a blue cat"]),
        ("?query=DIVERGED", ["a refused owl"]),
        ("?status=stopped", ["a half dog"]),
        ("?status=done&query=cat", []),
        ("?size=2&page=3", ["a fox in a box", "a blue cat"]),
    ],
)
def test_runs_are_found(tmp_path, query, found):
    batch_folder(tmp_path / "animals", RUNS)
    with studio_at(tmp_path) as client:
        assert [run["prompt"] for run in runs_of(client, query)] == found


def test_the_gallery_finds_a_batch_by_a_prompt(tmp_path):
    batch_folder(tmp_path / "animals", RUNS)
    with studio_at(tmp_path) as client:
        until(lambda: client.get("/api/tasks?query=blue+cat").json["total"] == 1)
        assert client.get("/api/tasks?query=blue+fox").json["total"] == 0  # no run is both
        assert client.get("/api/tasks?query=animals").json["total"] == 1
        identity = the_batch(client)["id"]
        assert client.get(f"/api/tasks/{identity}/runs?status=odd").status == 422
        assert client.get(f"/api/tasks/{runs_of(client)[0]['id']}/runs").status == 404


def test_a_batch_may_lie_deep_or_be_the_root(tmp_path):
    batch_folder(tmp_path / "of" / "last" / "week", RUNS)
    with studio_at(tmp_path) as client:
        assert the_batch(client)["folder"] == "of/last/week"
    with studio_at(tmp_path / "of" / "last" / "week") as client:
        assert the_batch(client)["folder"] == "."
        assert [run["status"] for run in runs_of(client, "?query=red")] == ["done"]
        assert client.get(f"/api/tasks/{the_batch(client)['cover'][0]}/files/preview.png").status == 200
        assert client.get("/api/tasks").json["total"] == 1


def test_what_another_process_does_is_seen_and_told(tmp_path):
    folder = batch_folder(tmp_path / "animals", RUNS)
    states, cat = States(folder), f"{1:032x}"
    with studio_at(tmp_path) as client:
        before = client.get("/api/health").json["last_event"]
        with driving(folder, "2-of-8"):
            until(lambda: the_batch(client)["state"] == "IN_PROGRESS")
            with owned(folder.run(cat)):
                states.write(
                    cat, Standing("running", 1, host=platform.node(), process=os.getpid(), step=2, beat=time.time())
                )
                until(lambda: the_batch(client)["counts"].get("running") == 1)
                assert the_batch(client)["seconds_left"] == 3 * 60.0  # hen, cat and dog, a minute each
                [run] = runs_of(client, "?status=running")
                assert (run["prompt"], run["step"]) == ("a blue cat", 2)
            states.write(cat, MADE)
            until(lambda: the_batch(client)["step"] == 3)
        until(lambda: the_batch(client)["state"] == "CANCELED")
        assert events_of(client, before, until='"step": 3')


def test_a_process_that_is_gone_works_on_nothing(tmp_path):
    folder = batch_folder(tmp_path / "animals", RUNS)
    here = Standing("running", 1, host=platform.node(), process=1, beat=time.time())
    States(folder).write(f"{1:032x}", here)
    States(folder).write(f"{5:032x}", Standing("running", 1, host="elsewhere", beat=time.time() - 10))
    States(folder).write(f"{3:032x}", Standing("running", 1, host="elsewhere", beat=time.time() - 10_000))
    with studio_at(tmp_path) as client:
        until(lambda: the_batch(client)["counts"].get("stopped") == 2)
        assert [run["host"] for run in runs_of(client, "?status=running")] == ["elsewhere"]


def test_a_look_reads_what_was_written_and_no_more(tmp_path):
    folder = batch_folder(tmp_path / "many", {f"a fox {n}": MADE for n in range(40)})
    followed, states = Followed(folder.path), States(folder)
    assert sum(map(len, followed.items())) == 40
    followed.changes()  # once more, for what came in the same instant
    assert followed.changes() == []
    states.write(f"{7:032x}", Standing("failed", 1, 1, error="oh"))
    assert [(each.name, each.status) for each in followed.changes() if each.state.error] == [(f"{7:032x}", "failed")]
    followed.changes()
    for name in map("{:032x}".format, range(40)):  # an hour ago
        os.utime(folder.state(name), (time.time() - 3600, time.time() - 3600))
    states.write(f"{8:032x}", Standing())
    assert [each.name for each in followed.changes()] == [f"{8:032x}"]


def test_more_than_a_chunk_of_runs(tmp_path):
    folder = batch_folder(tmp_path / "many", {f"a fox {n}": Standing() for n in range(CHUNK + 5)})
    with studio_at(tmp_path) as client:
        assert the_batch(client)["counts"] == {"waiting": CHUNK + 5}
        shutil.rmtree(folder.path)
        until(lambda: client.get("/api/tasks").json["total"] == 0)
        assert client.get("/api/tasks?query=fox").json["total"] == 0


def test_a_new_batch_in_the_same_place(tmp_path):
    folder = batch_folder(tmp_path / "animals", RUNS)
    with studio_at(tmp_path) as client:
        assert the_batch(client)["steps"] == 6
        shutil.rmtree(folder.path)
        batch_folder(folder.path, {"a bee": Standing()})
        until(lambda: [task["counts"] for task in client.get("/api/tasks").json["tasks"]] == [{"waiting": 1}])


@pytest.mark.parametrize("line", ["no json", '{"id": "../../secret", "line": 1}', '{"id": 3}'])
def test_a_damaged_manifest_shows_nothing_and_harms_nothing(tmp_path, line):
    folder = batch_folder(tmp_path / "animals", RUNS)
    folder.manifest.write_text(f"{line}\n")
    with studio_at(tmp_path) as client:
        assert client.get("/api/tasks").json["total"] == 0
        assert client.get("/api/health").status == 200


# Going on


def test_going_on_makes_what_is_left(tmp_path):
    batch_folder(tmp_path / "animals", RUNS)
    with studio_at(tmp_path) as client:
        identity = the_batch(client)["id"]
        assert client.post(f"/api/tasks/{identity}/resume").status == 202
        task = client.until(identity, "FAILED")
        assert task["counts"] == {"aside": 1, "failed": 1, "done": 4}
        assert task["error"] == "2 failed"
        assert {run["prompt"]: run["failures"] for run in runs_of(client)[:2]} == {
            "a refused owl": 3,
            "a refused hen": 2,
        }


def test_what_is_set_aside_is_tried_once_more_when_asked(tmp_path):
    batch_folder(tmp_path / "animals", RUNS)
    with studio_at(tmp_path) as client:
        identity = the_batch(client)["id"]
        client.post(f"/api/tasks/{identity}/resume", {"set_aside": True})
        client.until(identity, "FAILED")
        assert {run["prompt"]: run["failures"] for run in runs_of(client)[:2]} == {
            "a refused owl": 4,
            "a refused hen": 2,
        }


def test_it_waits_for_whoever_works_on_it(tmp_path):
    folder = batch_folder(tmp_path / "animals", RUNS)
    with studio_at(tmp_path) as client:
        identity = the_batch(client)["id"]
        with driving(folder, "1-of-1"):
            until(lambda: the_batch(client)["state"] == "IN_PROGRESS")
            assert client.post(f"/api/tasks/{identity}/resume").status == 409
            assert client.post(f"/api/tasks/{identity}/cancel").status == 409
        until(lambda: the_batch(client)["state"] == "CANCELED")


def test_a_batch_makes_room_and_goes_on_by_itself(tmp_path):
    batch_folder(tmp_path / "many", {f"a slow fox {n}": Standing() for n in range(20)})
    with studio_at(tmp_path) as client:
        identity = the_batch(client)["id"]
        client.post(f"/api/tasks/{identity}/resume")
        until(lambda: 0 < the_batch(client)["step"] < 20)
        single = client.make("a chair")
        client.until(single["id"], "SUCCEEDED")
        assert the_batch(client)["step"] < 20
        client.until(identity, "SUCCEEDED")
        assert the_batch(client)["counts"] == {"done": 20}


def test_a_restart_goes_on_with_a_batch(tmp_path):
    batch_folder(tmp_path / "many", {f"a slow fox {n}": Standing() for n in range(20)})
    with studio_at(tmp_path) as client:
        identity = the_batch(client)["id"]
        client.post(f"/api/tasks/{identity}/resume")
        until(lambda: the_batch(client)["step"] > 0)
    (tmp_path / ".studio" / "index.sqlite3").unlink()
    with studio_at(tmp_path) as client:
        assert the_batch(client)["id"] == identity
        client.until(identity, "SUCCEEDED")


def test_stopping_a_batch(tmp_path):
    batch_folder(tmp_path / "many", {f"a slow fox {n}": Standing() for n in range(20)})
    with studio_at(tmp_path) as client:
        identity = the_batch(client)["id"]
        client.post(f"/api/tasks/{identity}/resume")
        until(lambda: the_batch(client)["step"] > 0)
        assert client.post(f"/api/tasks/{identity}/cancel").status == 202
        assert 0 < client.until(identity, "CANCELED")["step"] < 20


def test_batches_come_last_and_keep_nobody_waiting():
    batch = Task("b", "b", kind="batch", queued=1.0, steps=100)
    runs = [Task(str(n), str(n), queued=2.0 + n, steps=10) for n in range(3)]
    assert [task.id for task in in_order([batch, *runs], {})] == ["0", "1", "2", "b"]
    at_work = Task("c", "c", kind="batch", state=State.IN_PROGRESS, steps=1_000_000, rate=1e-3)
    assert [place["seconds"] for place in places([runs[0], batch], [at_work], 1.0, 1)] == [30, None]


# What belongs to the batch stays its own


@pytest.mark.parametrize("act", ["resume", "refine", "cancel"])
def test_runs_of_a_batch_are_left_to_it(tmp_path, act):
    batch_folder(tmp_path / "animals", RUNS)
    with studio_at(tmp_path) as client:
        for run in runs_of(client):
            answer = client.post(f"/api/tasks/{run['id']}/{act}")
            assert (answer.status, "belongs to a batch" in answer.json["error"]) == (409, True)
            assert client.ask("DELETE", f"/api/tasks/{run['id']}").status == 409
        identity = the_batch(client)["id"]
        assert client.ask("DELETE", f"/api/tasks/{identity}").status == 409
        for other in ("refine", "retry", "exports"):
            assert client.post(f"/api/tasks/{identity}/{other}", {"format": "stl"}).status == 409


def test_a_run_of_a_batch_is_made_again_beside_it(tmp_path):
    batch_folder(tmp_path / "animals", RUNS)
    with studio_at(tmp_path) as client:
        [fox] = runs_of(client, "?query=red")
        made = client.post(f"/api/tasks/{fox['id']}/retry", {"seed": 77, "prompt": "a red fox"})
        assert (made.status, made.json["batch"], made.json["folder"]) == (201, "", "a-red-fox-77")
        exported = client.post(f"/api/tasks/{fox['id']}/exports", {"format": "stl"})
        assert "mesh.stl" in exported.json["files"]
        client.until(made.json["id"], "SUCCEEDED")
        assert client.get("/api/tasks").json["total"] == 2  # the batch, and what was made beside it


def test_links_in_a_batch_are_not_followed(tmp_path):
    root, away = tmp_path / "root", tmp_path / "away"
    folder = batch_folder(root / "animals", RUNS)
    away.mkdir()
    (folder.path / "runs").rename(away / "runs")
    (folder.path / "runs").symlink_to(away / "runs")
    with studio_at(root) as client:
        for run in runs_of(client):
            assert client.get(f"/api/tasks/{run['id']}").status == 404 or run["status"] == "waiting"
            assert client.get(f"/api/tasks/{run['id']}/files/preview.png").status == 404


def test_batches_of_others_are_not_gone_on_with(tmp_path):
    batch_folder(tmp_path / "animals", RUNS)
    tokens = ("first-token-of-all", "second-token-of-all")
    with studio_at(tmp_path, tokens) as client:
        identity = the_batch(client)["id"]
        assert client.post(f"/api/tasks/{identity}/resume").status == 403
        without = Client(client.port)
        assert without.get(f"/api/tasks/{identity}/runs").status == 401


def test_the_look_at_a_batch_needs_no_file_of_its_runs(tmp_path, monkeypatch):
    """The pages of a batch of any size cost what they show."""
    folder = batch_folder(tmp_path / "animals", RUNS)
    shutil.rmtree(folder.path / "runs")
    with studio_at(tmp_path) as client:
        assert len(runs_of(client)) == 6
        assert the_batch(client)["cover"] == []
        one = client.get(f"/api/tasks/{runs_of(client, '?query=red')[0]['id']}").json
        assert (one["prompt"], one["files"]) == ("a red fox", [])


def test_a_note_of_the_studio_is_no_state(tmp_path):
    """What an earlier attempt of the studio's came to does not outlive what the directory says."""
    folder = batch_folder(tmp_path / "animals", {"a red fox": MADE})
    (folder.path / ".task.json").write_text(json.dumps({"state": "FAILED", "error": "1 failed", "owner": ""}))
    with studio_at(tmp_path) as client:
        assert (the_batch(client)["state"], the_batch(client)["error"]) == ("SUCCEEDED", "")


def test_what_is_told_of_a_batch_is_told_once(tmp_path, monkeypatch):
    batch_folder(tmp_path / "animals", RUNS)
    with studio_at(tmp_path) as client:
        time.sleep(0.3)
        before = client.get("/api/health").json["last_event"]
        time.sleep(0.5)
        assert client.get("/api/health").json["last_event"] == before


# The worker that goes on with a batch


@pytest.fixture
def voice(tmp_path: Path) -> Iterator[worker.Voice]:
    """A worker's, into a file."""
    with (tmp_path / "said").open("wb", buffering=0) as out:
        yield worker.Voice(out)


def test_the_worker_makes_a_batch_in_processes_of_its_own(tmp_path, monkeypatch, voice):
    monkeypatch.setattr("dreamfusion.batch.worker.MakeRuns", lambda: Counted(tmp_path / "log"))
    runs = {"a fox": Standing(), "a refused owl": Standing(), "a cat": MADE, "a lost dog": RUNS["a refused owl"]}
    folder = batch_folder(tmp_path / "animals", runs, steps=8)
    job = {"folder": str(folder.path), "device": "cpu", "share": 2, "retries": 0}
    said = worker._batch(job, voice, lambda: False)
    assert said == {"end": "failed", "error": "2 of 4 failed"}
    found = [States(folder).read(f"{number:032x}") for number in range(4)]
    assert [(state.status, state.failures) for state in found] == [
        ("done", 0),
        ("failed", 1),  # refused, which the same command does not try again
        ("done", 0),
        ("failed", 3),  # set aside
    ]
    assert {name: len(steps) for name, steps in done_steps(tmp_path / "log").items()} == {
        f"{0:032x}": 8,
        f"{1:032x}": 5,
    }
    assert folder.summary.is_file()
    with driving(folder, "1-of-1"), pytest.raises(InUse):
        worker._batch(job, voice, lambda: False)


def test_the_worker_is_asked_to_stop(tmp_path, monkeypatch, voice):
    monkeypatch.setattr("dreamfusion.batch.worker.MakeRuns", lambda: Counted(tmp_path / "log", seconds=0.01))
    folder = batch_folder(tmp_path / "animals", {"a fox": Standing()}, steps=100_000)
    job = {"folder": str(folder.path), "device": "cpu", "share": 2, "retries": 0}
    fox = f"{0:032x}"
    said = worker._batch(job, voice, lambda: States(folder).read(fox).status == "running")
    assert said == {"end": "stopped"}
    assert States(folder).read(fox).status == "stopped"


@pytest.mark.parametrize(
    ("device", "share", "gpus", "found"),
    [
        ("auto", 1, [], (4, [""])),
        ("cpu", 2, [], (2, ["-1"])),
        ("cpu", 8, [], (1, ["-1"])),
        ("auto", 1, ["0", "1"], (2, ["0", "1"])),
        ("cuda:1", 2, ["5", "7"], (1, ["7"])),
    ],
)
def test_a_batch_takes_its_worker_s_share_of_the_machine(monkeypatch, device, share, gpus, found):
    monkeypatch.setattr("dreamfusion.batch.local.visible_gpus", lambda device: gpus)
    monkeypatch.setattr("dreamfusion.runtime.available_cores", lambda: 4)
    assert worker._places(device, share) == found
