"""The studio's queue, index and API, with a worker that makes nothing."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import closing
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from dreamfusion.claims import in_use, owned
from dreamfusion.config.serialise import to_json
from dreamfusion.errors import UserError
from dreamfusion.studio import foreman
from dreamfusion.studio.app import _api
from dreamfusion.studio.events import Hub, number_of
from dreamfusion.studio.index import KEPT_EVENTS, Index
from dreamfusion.studio.order import in_order, places
from dreamfusion.studio.priors import EMBEDDED, offers, understanding
from dreamfusion.studio.scan import folders, read
from dreamfusion.studio.settings import again, config_from, described
from dreamfusion.studio.task import State, Task, task_from
from studio_parts import Client, events_of, fake_worker, run_folder, studio_at

__all__ = ["fake_worker"]
TOKENS = ("first-token-of-all", "second-token-of-all")
DESCRIPTION = json.loads((files("dreamfusion.studio") / "static" / "openapi.json").read_text(encoding="utf-8"))


# The API's description


def test_every_route_is_described_and_nothing_else():
    routes = {(route.path, method.lower()) for route in _api() for method in route.methods or () if method != "HEAD"}
    told = {(path, method) for path, methods in DESCRIPTION["paths"].items() for method in methods}
    assert told == routes | {("/api/openapi.json", "get")}


def breaks(value: Any, schema: dict[str, Any], where: str = "") -> list[str]:
    """How a value breaks a schema (the part of JSON Schema that the description uses)."""
    if "$ref" in schema:
        return breaks(value, DESCRIPTION["components"]["schemas"][schema["$ref"].rsplit("/", 1)[1]], where)
    kinds = {"string": str, "integer": int, "number": (int, float), "boolean": bool, "object": dict, "array": list}
    named = schema.get("type", [])
    allowed = [named] if isinstance(named, str) else named
    fits = [k for k in allowed if (value is None if k == "null" else isinstance(value, kinds[k]))]
    if allowed and (not fits or (isinstance(value, bool) and "boolean" not in allowed)):
        return [f"{where} is {value!r}, no {named}"]
    found = [f"{where} is {value!r}"] if "enum" in schema and value not in schema["enum"] else []
    if isinstance(value, dict):
        inner, others = schema.get("properties", {}), schema.get("additionalProperties", True)
        found += [f"{where} lacks {name}" for name in schema.get("required", []) if name not in value]
        for name, item in value.items():
            if name not in inner and others is False:
                found.append(f"{where} has {name}")
            found += breaks(item, inner.get(name, others if isinstance(others, dict) else {}), f"{where}.{name}")
    if isinstance(value, list):
        found += [each for item in value for each in breaks(item, schema.get("items", {}), f"{where}[]")]
    return found


def test_answers_are_as_described(tmp_path):
    run_folder(tmp_path / "a-fox-0")
    with studio_at(tmp_path) as client:
        task = client.make("a red chair")
        client.until(task["id"], "SUCCEEDED")
        one = f"/api/tasks/{task['id']}"
        asked = [
            ("get", "/api/health", None),
            ("get", "/api/options", None),
            ("get", "/api/settings", None),
            ("get", "/api/understand?prompt=a+red+chiar", None),
            ("get", "/api/understand?prior=none", None),
            ("get", "/api/queue", None),
            ("get", "/api/tasks?query=chair&state=SUCCEEDED", None),
            ("get", "/api/tasks?page=0", None),
            ("get", f"/api/tasks?page=0000000001{'9' * 5000}", None),
            ("post", "/api/tasks", {"prompt": "a fox", "steps": 1}),
            ("post", "/api/tasks", {"prompt": ""}),
            ("get", one, None),
            ("get", f"{one}/curve", None),
            ("post", f"{one}/retry", {"seed": 4}),
            ("post", f"{one}/cancel", {}),
            ("post", f"{one}/resume", {}),
            ("post", f"{one}/exports", {"format": "stl"}),
            ("post", "/api/scenes", {"title": "two", "assets": [{"id": task["id"]}, {"id": task["id"]}]}),
            ("post", "/api/scenes", {"title": "", "assets": []}),
            ("post", "/api/sentences", {"sentence": "a fox on a chair"}),
            ("post", "/api/sentences", {"sentence": "a fox in the snow"}),
            ("get", "/api/tasks/none", None),
            ("get", f"{one}/files/none", None),
        ]
        for method, path, body in asked:
            answer = client.ask(method.upper(), path, body)
            told = described_at(method, path.partition("?")[0])["responses"]
            assert str(answer.status) in told, (path, answer.status, answer.body)
            response = told[str(answer.status)]
            if "$ref" in response:
                response = DESCRIPTION["components"]["responses"][response["$ref"].rsplit("/", 1)[1]]
            schema = response["content"]["application/json"]["schema"]
            assert breaks(answer.json, schema) == [], path


def described_at(method: str, path: str) -> dict[str, Any]:
    parts = path.split("/")
    for known, methods in DESCRIPTION["paths"].items():
        own = known.split("/")
        same = len(own) == len(parts) and all(a == b or a[0] == "{" for a, b in zip(own[1:], parts[1:], strict=True))
        if same and method in methods:
            return methods[method]
    pytest.fail(f"{path} is not described")


def test_a_broken_answer_is_noticed():
    task = DESCRIPTION["components"]["schemas"]["Task"]
    good = json.loads(json.dumps(Task("1", "a").public()))
    assert breaks(good, task) == []
    assert breaks({**good, "seed": "3"}, task)
    assert breaks({**good, "state": "DONE"}, task)
    assert breaks({**good, "more": 1}, task)
    assert breaks({name: value for name, value in good.items() if name != "step"}, task)


# What is asked for


def test_a_configuration_has_the_messages_of_the_command_line():
    assert config_from({"prompt": "a fox", "steps": 7, "distill": {"guidance_scale": 3}}).distill.guidance_scale == 3.0
    law = {"kind": "CsdLaw"}
    assert type(config_from({"prompt": "a fox", "distill": {"law": law}}).distill.law).__name__ == "CsdLaw"
    for wanted, words in [
        ({"prompt": " "}, "the prompt is empty"),
        ({"prompt": "a fox", "steps": 0}, "--steps must be at least 1"),
        ({"prompt": "a fox", "stepz": 1}, "unknown setting stepz"),
        ({"prompt": "a fox", "preset": "best"}, "unknown preset"),
        ({"prompt": "a fox", "preset": 3}, "unknown preset"),
        ({"prompt": "a fox", "scene": 3}, "scene must be an object"),
        ({"prompt": "a fox", "version": "9"}, "unknown setting version"),
        ({"prompt": "a fox", "custom": ["prior"]}, "unknown setting custom"),
        ({"prompt": "a fox", "memory": {"embeddings": "/etc/passwd"}}, "names a file"),
    ]:
        with pytest.raises(UserError, match=words):
            config_from(wanted)


def test_again_keeps_all_but_the_changes():
    first = config_from({"prompt": "a fox", "preset": "sd", "render": {"samples": 33}})
    second = again({**to_json(first), "version": "0.1.0", "prior_sha256": "ab"}, {"seed": 9})
    assert (second.seed, second.render.samples, second.preset) == (9, 33, "sd")
    assert (second.version, second.prior_sha256) == ("", "")


def test_every_setting_is_described():
    rows = {row["name"]: row for row in described("fast")}
    assert rows["distill.guidance_scale"]["value"] == 1.0
    assert "guidance" in rows["distill.guidance_scale"]["help"]
    assert rows["conditions"]["choices"] == ["all", "no-camera", "no-variety", "none"]
    assert all(row["help"] for row in rows.values() if row["name"] not in ("optimise.shampoo",))
    wanted: dict[str, Any] = {"prompt": "a fox"}
    for name, row in rows.items():
        *path, last = name.split(".")
        place = wanted
        for part in path:
            place = place.setdefault(part, {})
        place[last] = row["value"]
    assert config_from(wanted) == config_from({"prompt": "a fox"})


def test_the_embedded_prior_is_understood_without_torch():
    offer = offers(())[EMBEDDED]
    told = understanding(offer, "a red chiar")
    assert [(word["word"], word["known"]) for word in told["words"]] == [("a", True), ("red", True), ("chiar", False)]
    assert "chair" in told["words"][2]["nearest"]
    assert "chiar" in str(told["error"])
    assert understanding(offer, "a red chair") | {"words": []} == {
        "words": [], "caption": "a red chair", "notes": [], "error": "",
    }  # fmt: skip
    couch = understanding(offer, "a red couch")
    assert (couch["caption"], couch["notes"], couch["error"]) == ("a red sofa", ["couch: sofa"], "")
    unicorn = understanding(offer, "a unicorn")
    assert unicorn["words"][1]["known"] is False
    assert "horse" in unicorn["words"][1]["nearest"]
    assert understanding(offer, "")["words"] == []


def test_the_server_imports_no_torch():
    modules = "sys, dreamfusion.cli.studio, dreamfusion.studio.serve"
    script = f"import {modules}; print({{'torch', 'numpy', 'PIL'}} & {{*sys.modules}})"
    printed = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == "set()"


# The order


def waiting(name: str, owner: str = "", queued: float = 1.0) -> Task:
    return Task(name, name, owner=owner, queued=queued, steps=100)


def test_users_take_turns():
    many = [waiting(f"a{n}", "a", 1.0 + n) for n in range(3)] + [waiting(f"b{n}", "b", 10.0 + n) for n in range(2)]
    assert [task.id for task in in_order(many, {})] == ["a0", "b0", "a1", "b1", "a2"]
    assert [task.id for task in in_order(many, {"a": 5.0})] == ["b0", "a0", "b1", "a1", "a2"]
    interrupted = waiting("a9", "a", 0.0)
    assert in_order([*many, interrupted], {"a": 5.0})[0] is interrupted


def test_places_tell_when():
    running = Task("r", "r", state=State.IN_PROGRESS, steps=100, step=50, rate=10.0)
    told = places([waiting("a"), waiting("b")], [running], rate=10.0, lanes=1)
    assert [each["place"] for each in told] == [1, 2]
    assert [each["seconds"] for each in told] == [25 + 30, 25 + 60]
    assert places([waiting("a")], [], rate=0.0, lanes=2)[0]["seconds"] is None


# The index and the folders


def test_the_index_finds_words_states_and_pages(tmp_path):
    index = Index(tmp_path / "index.sqlite3")
    index.put(
        [
            Task(f"{n}", f"f{n}", prompt=f"a {'red' if n % 2 else 'blue'} fox", seed=n, created=float(n), preset="fast")
            for n in range(50)
        ]
    )
    index.put([Task("x", "100%", prompt="50_50", state=State.FAILED, created=99.0)])

    def found(words: str, *states: State, sort: str = "newest", first: int = 0) -> list[str]:
        return [task.id for task in index.search(words, states or tuple(State), sort, first, 3).tasks]

    assert found("") == ["x", "49", "48"]
    assert found("RED fox") == ["49", "47", "45"]
    assert found("fox", first=3) == ["46", "45", "44"]
    assert found("seed:4") == ["4"]
    assert found("seed:4 blue") == ["4"]
    assert found("seed:4 red") == []
    assert found("%") == ["x"]
    assert found("0_5") == ["x"]
    assert found("", State.FAILED) == ["x"]
    assert found("fox", sort="seed") == ["0", "1", "2"]
    assert index.search("fox", tuple(State), "newest", 0, 3).total == 50
    index.close()


@pytest.mark.parametrize("content", [b"no database", b"", None])
def test_a_damaged_index_is_made_again(tmp_path, content):
    path = tmp_path / "index.sqlite3"
    if content is not None:
        path.write_bytes(content)
    index = Index(path)
    index.put([Task("1", "a", losses={"x": 0.5}, files=("mesh.glb",))])
    index.close()
    index = Index(path)
    assert index.get("1") == Task("1", "a", losses={"x": 0.5}, files=("mesh.glb",))
    index.close()


def test_an_index_with_damaged_rows_is_made_again(tmp_path):
    path = tmp_path / "index.sqlite3"
    for task in (Task("1", "a"), Task("2", "b")):
        with closing(Index(path)) as index:
            assert index.known() == {}
            index.put([task])
        path.write_bytes(path.read_bytes().replace(b'"folder": "%s"' % task.folder.encode(), b'"folder": \xff"x"'))


def test_an_index_with_a_damaged_layout_is_made_again(tmp_path):
    path = tmp_path / "index.sqlite3"
    Index(path).close()
    path.write_bytes(path.read_bytes().replace(b"CREATE TABLE tasks", b"CREATE TABLE t\x80sks"))
    with closing(Index(path)) as index:
        index.put([Task("1", "a")])
        assert index.known().keys() == {"a"}


def test_a_folder_in_the_place_of_the_index_is_named(tmp_path):
    (tmp_path / "index.sqlite3").mkdir()
    with pytest.raises(UserError, match=r"index\.sqlite3 was not written"):
        Index(tmp_path / "index.sqlite3")


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_folders_whose_names_are_no_text_are_passed_over(tmp_path):
    strange = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9")
    run_folder(tmp_path / "done")
    run_folder(Path(strange))
    run_folder(Path(strange) / "deep")
    assert [place for place, _ in folders(tmp_path)] == ["done"]


def test_folders_say_what_they_are(tmp_path):
    run_folder(tmp_path / "done")
    run_folder(tmp_path / "deep" / "er" / "half", done=2)
    run_folder(tmp_path / "deep" / "er" / "much" / "too-deep")
    run_folder(tmp_path / ".studio" / "hidden")
    (tmp_path / "other").mkdir()
    (tmp_path / "scene").mkdir()
    (tmp_path / "scene" / "scene.glb").write_bytes(b"glTF")
    (tmp_path / "link").symlink_to(tmp_path / "done")
    assert dict(folders(tmp_path)) == dict.fromkeys(("done", "deep/er/half", "scene"), False)
    tasks = {place: read(tmp_path, place) for place, _ in folders(tmp_path)}
    assert {place: task and task.state.value for place, task in tasks.items()} == {
        "done": "SUCCEEDED",
        "deep/er/half": "CANCELED",
        "scene": "SUCCEEDED",
    }
    half = tasks["deep/er/half"]
    assert half is not None
    assert (half.prompt, half.step, half.steps, half.progress) == ("a fox", 2, 3, 61)
    assert task_from(json.loads(json.dumps(half.record()))) == half


def test_a_folder_in_use_is_in_progress(tmp_path):
    path = run_folder(tmp_path / "half", done=1)
    script = (
        "import sys, pathlib, dreamfusion.claims as claims\n"
        "with claims.owned(pathlib.Path(sys.argv[1])):\n    print('in', flush=True)\n    input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout
        other.stdout.readline()
        assert in_use(path)
        task = read(tmp_path, "half")
        assert task is not None
        assert task.state is State.IN_PROGRESS
        other.kill()
        other.wait()
        assert not in_use(path)
    task = read(tmp_path, "half")
    assert task is not None
    assert task.state is State.CANCELED


@pytest.mark.parametrize("damage", ["config.json", ".task.json", "metrics.jsonl"])
@pytest.mark.parametrize(
    "content", [b"\xff\xfe", b"[1, 2]", b'{"state": 3, "created": "x", "steps": [], "step": true}', b""]
)
def test_damaged_files_are_no_end(tmp_path, damage, content):
    path = run_folder(tmp_path / "a")
    (path / damage).write_bytes(content)
    task = read(tmp_path, "a")
    assert task is None or task.folder == "a"


# A studio at work


def test_a_prompt_becomes_a_finished_task(tmp_path):
    with studio_at(tmp_path) as client:
        task = client.make("a red chair", seed=3)
        assert (task["state"], task["folder"], task["seed"]) == ("PENDING", "a-red-chair-3", 3)
        done = client.until(task["id"], "SUCCEEDED")
        assert (done["progress"], done["step"], done["error"]) == (100, 5, "")
        assert client.get(f"/api/tasks/{task['id']}/files/mesh.glb").body == b"glTF"
        curve = client.get(f"/api/tasks/{task['id']}/curve").json
        assert curve["steps"] == [1, 2, 3, 4, 5]
        assert curve["losses"]["distillation"][1] == 0.5
    config = json.loads((tmp_path / "a-red-chair-3" / "config.json").read_text())
    assert (config["prompt"], config["seed"], config["version"]) == ("a red chair", 3, "fake")


def test_bad_input_is_told_and_makes_nothing(tmp_path):
    with studio_at(tmp_path) as client:
        for body, words in [
            ({"prompt": "a red chiar"}, "chiar"),
            ({"prompt": "a red chair", "negative": "gloom", "distill": {"guidance_scale": 2}}, "gloom"),
            ({"prompt": "a red chair", "steps": -1}, "--steps"),
            ({"prompt": "a red chair", "prior": "/etc"}, "does not offer"),
            ([1], "object"),
            (b"{", "no JSON"),
            (b"[" * 5000, "no JSON"),
            (b'{"prompt": "\\ud800"}', "no JSON"),
        ]:
            answer = client.post("/api/tasks", body)
            assert (answer.status, words in answer.json["error"]) == (422, True), answer.body
        assert client.get("/api/tasks").json["total"] == 0
    assert [path.name for path in tmp_path.iterdir()] == [".studio"]


def test_canceling_a_waiting_task_leaves_the_running_one(tmp_path):
    with studio_at(tmp_path) as client:
        running = client.make("a snake", steps=150)
        client.until(running["id"], "IN_PROGRESS")
        first, second = client.make("a fox"), client.make("a cat")
        assert [each["id"] for each in client.get("/api/queue").json["queue"]] == [first["id"], second["id"]]
        assert client.post(f"/api/tasks/{first['id']}/cancel").json["state"] == "CANCELED"
        assert client.get(f"/api/tasks/{running['id']}").json["state"] == "IN_PROGRESS"
        assert client.post(f"/api/tasks/{first['id']}/cancel").status == 409
        client.until(second["id"], "SUCCEEDED")
        assert client.get(f"/api/tasks/{running['id']}").json["state"] == "SUCCEEDED"
        assert client.get(f"/api/tasks/{first['id']}").json["state"] == "CANCELED"


def test_a_running_task_is_canceled_and_resumed_where_it_was(tmp_path):
    with studio_at(tmp_path) as client:
        task = client.make("a snake", steps=100)
        while client.until(task["id"], "IN_PROGRESS")["step"] < 5:
            time.sleep(0.02)
        assert client.post(f"/api/tasks/{task['id']}/cancel").status == 202
        stopped = client.until(task["id"], "CANCELED")
        assert 5 <= stopped["step"] < 100
        assert client.post(f"/api/tasks/{task['id']}/resume").status == 202
        client.until(task["id"], "SUCCEEDED")
    steps = [json.loads(line)["step"] for line in (tmp_path / "a-snake-0" / "metrics.jsonl").read_text().splitlines()]
    assert steps == list(range(1, 101))


def test_again_and_delete(tmp_path):
    with studio_at(tmp_path) as client:
        task = client.make("a fox", seed=1)
        client.until(task["id"], "SUCCEEDED")
        other = client.post(f"/api/tasks/{task['id']}/retry", {"seed": 2}).json
        assert (other["seed"], other["prompt"], other["steps"]) == (2, "a fox", 5)
        client.until(other["id"], "SUCCEEDED")
        assert client.ask("DELETE", f"/api/tasks/{task['id']}").status == 204
        assert client.get(f"/api/tasks/{task['id']}").status == 404
        assert not (tmp_path / "a-fox-1").exists()
        fresh = client.make("a fox", seed=1)
        assert fresh["folder"] == "a-fox-1"
        assert fresh["id"] != task["id"]  # a page that shows the deleted one must not take it for this
        client.until(fresh["id"], "SUCCEEDED")


def test_a_finished_task_is_refined_in_its_own_folder(tmp_path):
    with studio_at(tmp_path) as client:
        first = client.until(client.make("a fox")["id"], "SUCCEEDED")
        answer = client.post(f"/api/tasks/{first['id']}/refine")
        assert (answer.status, answer.json["refining"]) == (202, True)
        done = client.until(first["id"], "SUCCEEDED")
        assert (done["refining"], done["step"], done["steps"]) == (False, 5, 5)
        assert client.get(f"/api/tasks/{first['id']}/files/mesh.glb").body == b"glTF, refined{}"
        seen = [event["data"] for event in events_of(client, 0, 1.0) if event["kind"] == "task"]
        assert any(task["refining"] and (task["step"], task["steps"]) == (3, 7) for task in seen)


def test_a_refinement_that_was_stopped_goes_on_as_one(tmp_path):
    with studio_at(tmp_path) as client:
        identity = client.until(client.make("a fox")["id"], "SUCCEEDED")["id"]
        client.post(f"/api/tasks/{identity}/refine")
        client.until(identity, "IN_PROGRESS")
        assert client.post(f"/api/tasks/{identity}/refine").status == 409
        client.post(f"/api/tasks/{identity}/cancel")
        stopped = client.until(identity, "CANCELED", "SUCCEEDED")
        assert stopped["refining"]
        assert stopped["step"] == stopped["steps"]
        again = "resume" if stopped["state"] == "CANCELED" else "refine"
        assert client.post(f"/api/tasks/{identity}/{again}").status == 202
        while client.get(f"/api/tasks/{identity}").json["refining"]:
            time.sleep(0.02)
        assert client.get(f"/api/tasks/{identity}/files/mesh.glb").body == b"glTF, refined{}"


def test_a_refinement_is_told_how_much_standing_weighs(tmp_path):
    with studio_at(tmp_path) as client:
        identity = client.until(client.make("a fox")["id"], "SUCCEEDED")["id"]
        for wrong, words in [
            ({"stability": -1}, "--stability must be at least 0, not -1"),
            ({"stability": "firmly"}, "stability"),
            ({"stability": True}, "stability"),
            ({"steps": 3}, "unknown setting steps"),
        ]:
            answer = client.post(f"/api/tasks/{identity}/refine", wrong)
            assert (answer.status, words in answer.json["error"]) == (422, True), answer.body
        assert client.post(f"/api/tasks/{identity}/refine", {"stability": 1e6}).json["told"] == {"stability": 1e6}
        client.until(identity, "IN_PROGRESS")
        client.post(f"/api/tasks/{identity}/cancel")
        assert client.until(identity, "CANCELED", "SUCCEEDED")["told"] == {"stability": 1e6}
    (tmp_path / ".studio" / "index.sqlite3").unlink()  # the folder's note says it too
    with studio_at(tmp_path) as client:
        assert client.get(f"/api/tasks/{identity}").json["told"] == {"stability": 1e6}
        assert client.post(f"/api/tasks/{identity}/refine", {"stability": 2e6}).status == 202
        while client.get(f"/api/tasks/{identity}").json["refining"]:
            time.sleep(0.02)
        assert client.get(f"/api/tasks/{identity}/files/mesh.glb").body == b'glTF, refined{"stability": 2000000.0}'
        assert client.get(f"/api/tasks/{identity}").json["told"] == {}


def test_what_fails_says_why_and_the_next_one_runs(tmp_path, monkeypatch):
    monkeypatch.setattr(foreman, "AGAIN_SECONDS", 0.01)
    with studio_at(tmp_path) as client:
        ghost, bomb, fox = (client.make(prompt) for prompt in ("a cloud", "a bomb", "a fox"))
        assert "empty" in client.until(ghost["id"], "FAILED")["error"]
        assert "code 1" in client.until(bomb["id"], "FAILED")["error"]
        client.until(fox["id"], "SUCCEEDED")


def test_a_restart_takes_up_queue_and_history(tmp_path):
    with studio_at(tmp_path) as client:
        done = client.make("a fox")
        client.until(done["id"], "SUCCEEDED")
        running = client.make("a snake", steps=120)
        waits = client.make("a cat")
        while client.until(running["id"], "IN_PROGRESS")["step"] < 5:
            time.sleep(0.02)
    shutil.rmtree(tmp_path / ".studio")  # the index is no more than an index
    with studio_at(tmp_path) as client:
        assert client.get(f"/api/tasks/{done['id']}").json["state"] == "SUCCEEDED"
        assert client.get(f"/api/tasks/{waits['id']}").json["state"] == "PENDING"
        client.until(waits["id"], "SUCCEEDED")
        assert client.get(f"/api/tasks/{running['id']}").json["state"] == "SUCCEEDED"  # it went first
    lines = (tmp_path / "a-snake-0" / "metrics.jsonl").read_text().splitlines()
    assert len(lines) == 120


def test_a_killed_server_leaves_a_worker_that_saves_and_a_task_that_goes_on(tmp_path, fake_worker):
    script = (
        "import sys\nfrom dreamfusion.studio import lane, serve\nfrom pathlib import Path\n"
        "import studio_parts\nlane.WORKER = studio_parts.WORKER\n"
        "serve.serve(Path(sys.argv[1]), serve.Address(port=int(sys.argv[2])), ('cpu',), (), lambda page: None)"
    )
    from studio_parts import free_port

    port, environment = free_port(), {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen([sys.executable, "-c", script, str(tmp_path), str(port)], env=environment) as server:
        client = Client(port)
        for _ in range(200):
            try:
                client.get("/api/health")
                break
            except OSError:
                time.sleep(0.05)
        task = client.make("a snake", steps=100)
        while client.until(task["id"], "IN_PROGRESS")["step"] < 5:
            time.sleep(0.02)
        server.send_signal(signal.SIGKILL)
    with studio_at(tmp_path) as client:
        client.until(task["id"], "SUCCEEDED")
    lines = (tmp_path / "a-snake-0" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == list(range(1, 101))


def test_runs_of_the_command_line_come_and_go(tmp_path, monkeypatch):
    from dreamfusion.studio import studio

    monkeypatch.setattr(studio, "SCAN_SECONDS", 0.05)
    run_folder(tmp_path / "early", prompt="an early fox", done=1)
    with studio_at(tmp_path) as client:
        [early] = client.get("/api/tasks").json["tasks"]
        assert (early["prompt"], early["state"]) == ("an early fox", "CANCELED")
        assert client.post(f"/api/tasks/{early['id']}/resume").status == 202
        assert client.until(early["id"], "SUCCEEDED")["id"] == early["id"]
        late = run_folder(tmp_path / "late", prompt="a late cat")
        for _ in range(200):
            if client.get("/api/tasks?query=late").json["total"]:
                break
            time.sleep(0.02)
        [found] = client.get("/api/tasks?query=late").json["tasks"]
        assert found["state"] == "SUCCEEDED"
        shutil.rmtree(late)
        for _ in range(200):
            if client.get(f"/api/tasks/{found['id']}").status == 404:
                break
            time.sleep(0.02)
        else:
            pytest.fail("a deleted folder stays")


def test_a_task_waits_for_the_process_that_holds_its_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(foreman, "AGAIN_SECONDS", 0.05)
    run_folder(tmp_path / "held", done=1)
    with studio_at(tmp_path) as client:
        [task] = client.get("/api/tasks").json["tasks"]
        with owned(tmp_path / "held"):
            client.post(f"/api/tasks/{task['id']}/resume")
            for _ in range(200):
                if client.get(f"/api/tasks/{task['id']}").json["doing"] == "waiting for another process":
                    break
                time.sleep(0.02)
            else:
                pytest.fail("nobody waited")
        client.until(task["id"], "SUCCEEDED")


def test_two_studios_on_one_root_are_refused(tmp_path):
    with studio_at(tmp_path), pytest.raises(UserError, match="in use"), owned(tmp_path / ".studio"):
        pass


def test_formats_scenes_and_bundles(tmp_path):
    with studio_at(tmp_path) as client:
        task = client.make("a fox")
        one = f"/api/tasks/{task['id']}"
        assert client.post(f"{one}/exports", {"format": "stl"}).status in (201, 409)  # there may be no mesh yet
        client.until(task["id"], "SUCCEEDED")
        made = client.post(f"{one}/exports", {"format": "stl"})
        assert "mesh.stl" in made.json["files"]
        assert client.get(f"{one}/files/mesh.stl").headers["content-disposition"].startswith("attachment")
        assert client.get(f"{one}/files/obj.zip").status == 404
        assert client.get(f"{one}/files/all.zip").body[:2] == b"PK"
        scene = client.post(
            "/api/scenes", {"title": "Two foxes", "assets": [{"id": task["id"], "position": [1, 0, 0]}]}
        ).json
        assert (scene["kind"], scene["state"], scene["prompt"], scene["folder"]) == (
            "scene",
            "SUCCEEDED",
            "Two foxes",
            "two-foxes",
        )
        assert client.get(f"/api/tasks/{scene['id']}/files/scene.glb").body == b"glTF"
        assert client.post(f"/api/tasks/{scene['id']}/retry").status == 409
        for assets in (
            [],
            [{"id": "none"}],
            [{"file": "/etc/passwd"}],
            [{"id": task["id"], "file": "/etc/passwd"}],
            [3],
        ):
            answer = client.post("/api/scenes", {"title": "x", "assets": assets})
            assert answer.status in (404, 422), answer.body


def test_a_scene_of_a_sentence(tmp_path):
    with studio_at(tmp_path) as client:
        answer = client.post("/api/sentences", {"sentence": "a fox on a chair", "seed": 3})
        assert (answer.status, answer.json["kind"], answer.json["folder"]) == (201, "scene", "a-fox-on-a-chair-3")
        done = client.until(answer.json["id"], "SUCCEEDED")
        assert (done["prompt"], done["files"]) == ("a fox on a chair", ["scene.glb", "scene.json"])
        for wrong in (
            {"sentence": "a fox in the snow"},
            {"sentence": "  "},
            {"sentence": 3},
            {"sentence": "a fox", "seed": -1},
            {"sentence": "a fox", "seed": True},
            {"sentence": "a fox", "prior": "/etc"},
            {"sentence": "a fox", "out": "/tmp/x"},
        ):
            assert client.post("/api/sentences", wrong).status == 422, wrong
    assert sorted(path.name for path in tmp_path.iterdir()) == [".studio", "a-fox-on-a-chair-3"]


def test_a_scene_of_a_sentence_is_stopped_and_goes_on(tmp_path):
    with studio_at(tmp_path) as client:
        scene = client.post("/api/sentences", {"sentence": "a slow fox on a chair"}).json
        client.until(scene["id"], "IN_PROGRESS")
        client.post(f"/api/tasks/{scene['id']}/cancel")
        assert client.until(scene["id"], "CANCELED")["kind"] == "scene"
    (tmp_path / ".studio" / "index.sqlite3").unlink()
    with studio_at(tmp_path) as client:
        known = client.get(f"/api/tasks/{scene['id']}").json
        assert (known["state"], known["prompt"], known["kind"]) == ("CANCELED", "a slow fox on a chair", "scene")
        client.post(f"/api/tasks/{scene['id']}/resume")
        client.until(scene["id"], "SUCCEEDED")


JOINT = {"sentence": "a fox on a chair", "joint": 60}


def test_a_joint_stage_is_for_priors_that_read_sentences(tmp_path):
    with studio_at(tmp_path, priors=(hub := "somebody/reads-anything",)) as client:
        answer = client.post("/api/sentences", JOINT)
        assert (answer.status, "knows single things, no sentences" in answer.json["error"]) == (422, True)
        assert answer.json["error"] == client.get("/api/options").json["priors"][0]["no_joint"]
        for wrong in (-1, True, "3", 0.5, 10**10):
            assert client.post("/api/sentences", {**JOINT, "prior": hub, "joint": wrong}).status == 422, wrong
        assert client.get("/api/tasks").json["total"] == 0
        assert client.get("/api/options").json["priors"][1]["no_joint"] == ""
        assert client.post("/api/sentences", {**JOINT, "prior": hub}).status == 201


def test_a_joint_stage_is_followed_stopped_and_goes_on(tmp_path):
    hub = "somebody/reads-anything"
    with studio_at(tmp_path, priors=(hub,)) as client:
        scene = client.post("/api/sentences", {**JOINT, "prior": hub}).json
        assert scene["steps"] == 0  # of things whose making comes first nobody knows
        while (now := client.until(scene["id"], "IN_PROGRESS"))["step"] < 5:
            time.sleep(0.02)
        assert (now["steps"], now["opacity"], now["progress"]) == (60, 0.25, 92 * now["step"] // 60)
        assert now["seconds_left"] > 0
        assert "preview.png" in now["files"]
        client.post(f"/api/tasks/{scene['id']}/cancel")
        stopped = client.until(scene["id"], "CANCELED")
        assert 5 <= stopped["step"] < 60
    (tmp_path / ".studio" / "index.sqlite3").unlink()
    with studio_at(tmp_path, priors=(hub,)) as client:
        known = client.get(f"/api/tasks/{scene['id']}").json
        assert (known["state"], known["step"], known["steps"]) == ("CANCELED", stopped["step"], 60)
        client.post(f"/api/tasks/{scene['id']}/resume")
        done = client.until(scene["id"], "SUCCEEDED")
        assert (done["progress"], done["step"], done["steps"]) == (100, 60, 60)
        assert client.get(f"/api/tasks/{scene['id']}/curve").json["steps"] == list(range(1, 61))
    (tmp_path / ".studio" / "index.sqlite3").unlink()
    with studio_at(tmp_path) as client:
        assert client.get(f"/api/tasks/{scene['id']}").json["state"] == "SUCCEEDED"


def test_several_users(tmp_path, monkeypatch):
    with studio_at(tmp_path, TOKENS) as client:
        other = Client(client.port, {"Authorization": f"Bearer {TOKENS[1]}"})
        running = client.make("a snake", steps=60)
        client.until(running["id"], "IN_PROGRESS")
        mine, mine_too, theirs = client.make("a fox"), client.make("a cat"), other.make("a dog")
        order = [each["id"] for each in client.get("/api/queue").json["queue"]]
        assert order == [theirs["id"], mine["id"], mine_too["id"]]
        assert mine["owner"] != theirs["owner"]
        assert TOKENS[0] not in json.dumps(mine)
        for act in ("cancel", "resume"):
            assert other.post(f"/api/tasks/{mine['id']}/{act}").status == 403
        assert other.ask("DELETE", f"/api/tasks/{mine['id']}").status == 403
        assert other.get(f"/api/tasks/{mine['id']}").status == 200
        assert client.post(f"/api/tasks/{mine['id']}/cancel").status == 202
        assert other.post(f"/api/tasks/{mine['id']}/retry").json["owner"] == theirs["owner"]


# Events


def test_no_event_is_lost_on_a_broken_stream(tmp_path):
    with studio_at(tmp_path) as client:
        task = client.make("a fox", steps=3)
        client.until(task["id"], "SUCCEEDED")
        whole = events_of(client, after=0, until='"SUCCEEDED"')
        assert [event["kind"] for event in whole[:2]] == ["hello", "task"]
        numbers = [event["id"] for event in whole[1:]]
        assert numbers == list(range(1, len(numbers) + 1))
        states = [event["data"]["state"] for event in whole if event["kind"] == "task"]
        assert (states[0], states[-1]) == ("PENDING", "SUCCEEDED")
        middle = numbers[len(numbers) // 2]
        rest = events_of(client, after=middle, until='"SUCCEEDED"')
        assert rest[1:] == [event for event in whole[1:] if event["id"] > middle]
        assert events_of(client, after=10**6, seconds=0.3)[0]["kind"] == "reset"


def test_events_survive_a_restart_and_old_ones_go(tmp_path):
    index = Index(tmp_path / "index.sqlite3")
    for number in range(KEPT_EVENTS + 600):
        index.tell("task", str(number))
    index.close()
    index = Index(tmp_path / "index.sqlite3")
    kept = index.last_events(10**6)
    assert KEPT_EVENTS <= len(kept) <= KEPT_EVENTS + 500
    assert (kept[-1].id, kept[-1].body) == (KEPT_EVENTS + 600, str(KEPT_EVENTS + 599))
    assert Hub(index).last == KEPT_EVENTS + 600
    index.close()


def test_what_is_no_number_of_an_event_begins_anew():
    assert [number_of(text) for text in (None, "", "17", "-5", "x", "9" * 30)] == [
        None,
        None,
        17,
        -1,
        -1,
        int("9" * 30),
    ]
