"""The studio as an attacker would try it: each hole that others had (docs/studio.md), and its neighbours."""

import json
import socket
import time
from collections.abc import Iterator

import pytest

from dreamfusion.errors import UserError
from dreamfusion.studio import contents, security
from dreamfusion.studio.index import Index
from dreamfusion.studio.priors import offers
from dreamfusion.studio.security import LARGEST_BODY, Rates, door
from dreamfusion.studio.studio import Limits, Refused, Studio
from studio_parts import Client, events_of, fake_worker, run_folder, studio_at

__all__ = ["fake_worker"]
TOKEN = "a-token-that-is-long"


@pytest.fixture
def client(tmp_path) -> Iterator[Client]:
    run_folder(tmp_path / "a-fox-0")
    (tmp_path / "secret.txt").write_text("secret")
    with studio_at(tmp_path) as client:
        yield client


@pytest.fixture
def guarded(tmp_path) -> Iterator[Client]:
    """A studio with a token, and a visitor without."""
    with studio_at(tmp_path, [TOKEN]) as client:
        yield Client(client.port)


def fox(client: Client) -> str:
    return client.get("/api/tasks").json["tasks"][0]["id"]


# Other sites


def test_other_sites_change_nothing(client):
    """Requests that a page elsewhere can make a browser send to this machine (ComfyUI #4850, #13245)."""
    host = client.host
    name = f"127.0.0.1:{client.port}"
    for origin in (
        None,
        "null",
        "https://evil.example",
        f"http://{name}.evil.example",
        f"http://evil.example/{name}",
        f"http://{name}@evil.example",
        "http://127.0.0.1",
        f"http://127.0.0.1:{client.port + 1}",
        f"http://localhost:{client.port}",  # another name of the same place is another site
        f"http://{name}/",
        f"file://{name}",
        "",
    ):
        answer = client.post("/api/tasks", {"prompt": "a fox"}, Origin=origin)
        assert answer.status == 403, origin
        assert client.ask("DELETE", f"/api/tasks/{fox(client)}", Origin=origin).status == 403
        assert "access-control-allow-origin" not in answer.headers
    assert client.post("/api/tasks", {"prompt": "a fox"}, Origin=f"http://{host}").status == 201


@pytest.mark.parametrize(
    "kind", [None, "text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "text/json"]
)
def test_forms_are_no_json(client, kind):
    """What a form can send without asking first."""
    assert client.post("/api/tasks", {"prompt": "a fox"}, Content_Type=kind).status == 415
    assert client.ask("DELETE", f"/api/tasks/{fox(client)}", Content_Type=kind).status == 415


def test_preflights_allow_nothing(client):
    headers = {"Origin": "https://evil.example", "Access_Control_Request_Method": "DELETE"}
    answer = client.ask("OPTIONS", "/api/tasks", Content_Type=None, **headers)
    assert answer.status == 403
    assert not [name for name in answer.headers if name.startswith("access-control")]


def test_names_that_point_here_are_not_served(client):
    """DNS rebinding: Host and Origin agree, and both are the attacker's (ComfyUI #12860, #14085)."""
    port = client.port
    for host in (
        "evil.example",
        f"evil.example:{port}",
        "127.0.0.1",
        f"127.0.0.1:{port}.evil.example",
        f"x@127.0.0.1:{port}",
        "",
        f"127.0.0.1:{port + 1}",
    ):
        for path in ("/", "/api/tasks", "/api/events", "/static/main.js"):
            assert client.get(path, Host=host).status == 421, (host, path)
        assert client.post("/api/tasks", {"prompt": "a fox"}, Host=host, Origin=f"http://{host}").status == 421
    for host in (f"localhost:{port}", f"LOCALHOST:{port}", f"[::1]:{port}"):
        assert client.get("/api/health", Host=host).status == 200


def raw(client: Client, text: str) -> bytes:
    with socket.create_connection(("127.0.0.1", client.port), timeout=10) as connection:
        connection.sendall(text.encode("latin-1"))
        return connection.recv(65536)


def test_two_hosts_are_none(client):
    own = f"Host: {client.host}\r\n"
    assert b" 200 " in raw(client, f"GET /api/health HTTP/1.1\r\n{own}\r\n")
    assert b" 4" in raw(client, f"GET /api/health HTTP/1.1\r\n{own}Host: evil.example\r\n\r\n")[:13]
    assert b" 4" in raw(client, "GET /api/health HTTP/1.0\r\n\r\n")[:13]


# Files


def test_no_path_leaves_the_folder_of_a_task(client, tmp_path):
    """Path traversal, as of bulk downloads and static folders elsewhere (ComfyUI #14734)."""
    one = fox(client)
    assert client.get(f"/api/tasks/{one}/files/config.json").status == 200
    up = ("../secret.txt", "..%2fsecret.txt", "%2e%2e/secret.txt", "..%5csecret.txt", "/etc/passwd", "%2fetc%2fpasswd")
    inside = ("media/preview.png", "checkpoint", ".task.json", ".lock", "config.json/", "config.json%00.png", "")
    for name in (*up, *inside, "CONFIG.JSON"):
        assert client.get(f"/api/tasks/{one}/files/{name}").status == 404, name
    for path in (
        "/../secret.txt",
        "/static/../../secret.txt",
        "/static/%2e%2e/app.py",
        "/static/..%2fapp.py",
        "//etc/passwd",
        "/static/",
        "/.studio/index.sqlite3",
    ):
        assert client.get(path).status == 404, path
    for identity in ("..", "a-fox-0", "%2e%2e%2fa-fox-0", "' OR 1=1 --", "%27%20OR%201=1"):
        assert client.get(f"/api/tasks/{identity.replace(' ', '%20')}").status == 404


def test_links_in_a_folder_are_not_followed(client, tmp_path):
    (tmp_path / "a-fox-0" / "mesh.stl").symlink_to(tmp_path / "secret.txt")
    (tmp_path / "a-fox-0" / "media").symlink_to("/etc")
    one = fox(client)
    assert client.get(f"/api/tasks/{one}/files/mesh.stl").status == 404
    assert b"secret" not in client.get(f"/api/tasks/{one}/files/all.zip").body


def test_what_a_folder_holds_never_runs_as_a_page_of_the_studio(client, tmp_path):
    """Stored cross-site scripting by pages and SVG."""
    one = fox(client)
    (tmp_path / "a-fox-0" / "index.html").write_text("<script>parent.stolen = 1</script>")
    page = client.get(f"/api/tasks/{one}/files/index.html")
    assert page.headers["content-disposition"].startswith("attachment")
    assert page.headers["content-type"] == "application/octet-stream"
    assert page.headers["x-content-type-options"] == "nosniff"
    assert not [name for name in contents._SHOWN if name in (".svg", ".html", ".xml", ".js")]


def test_names_of_folders_cannot_break_a_header(tmp_path):
    name = 'a"\r\nSet-Cookie: x=1\r\n\u202e;'.replace("\r\n", "\n")
    run_folder(tmp_path / name)
    with studio_at(tmp_path) as client:
        answer = client.get(f"/api/tasks/{fox(client)}/files/mesh.glb?save")
        assert answer.status == 200
        assert "set-cookie" not in answer.headers
        assert answer.headers["content-disposition"].count('"') == 2


def test_a_thousand_ranges_are_no_work(client, tmp_path):
    """CVE-2025-62727: ranges that take quadratic time to merge."""
    ranges = "bytes=" + ",".join(f"{n}-{n}" for n in range(0, 3000, 2))
    began = time.process_time()
    assert client.get(f"/api/tasks/{fox(client)}/files/mesh.glb", Range=ranges).status in (200, 206, 400, 416)
    assert time.process_time() - began < 2


def test_prompts_stay_text(client):
    task = client.post("/api/tasks/" + fox(client) + "/retry", {"negative": ""}).json
    assert client.get(f"/api/tasks/{task['id']}").headers["content-type"] == "application/json"
    assert b"<script" not in client.get("/").body.replace(b'<script src="/static/', b"").replace(
        b'<script type="module" src="/static/', b""
    )


def test_no_folder_of_the_machine_can_be_asked_for(client, tmp_path):
    """Scans of folders through settings that are paths (InvokeAI #9365)."""
    answers = [
        client.post("/api/tasks", {"prompt": "a fox", "prior": prior}) for prior in ("/etc", "/nowhere", str(tmp_path))
    ]
    assert {answer.status for answer in answers} == {422}
    told = {
        answer.json["error"].replace(prior, "X")
        for answer, prior in zip(answers, ("/etc", "/nowhere", str(tmp_path)), strict=True)
    }
    assert len(told) == 1  # nothing is learnt of what is there
    assert client.post("/api/tasks", {"prompt": "a fox", "memory": {"embeddings": "/etc/passwd"}}).status == 422


def test_every_answer_has_the_headers(client):
    for path in (
        "/",
        "/static/main.js",
        "/api/tasks",
        "/api/tasks/none",
        "/nothing",
        f"/api/tasks/{fox(client)}/files/mesh.glb",
    ):
        answer = client.get(path)
        for name, value in security.HEADERS.items():
            assert answer.headers[name] == value, path
        assert "server" not in answer.headers
    policy = security.HEADERS["content-security-policy"]
    assert "unsafe" not in policy
    assert "default-src 'none'" in policy


# Tokens


@pytest.mark.parametrize(
    "path", ["/", "/static/main.js", "/api/health", "/api/tasks", "/api/events", "/api/openapi.json"]
)
def test_nothing_is_shown_without_the_token(guarded, path):
    for headers in ({}, {"Authorization": "Bearer "}, {"Authorization": "Basic x"}, {"Cookie": "dreamfusion=1; ="}):
        assert guarded.get(path, **headers).status == 401
    assert guarded.post("/api/tasks", {"prompt": "a fox"}).status == 401
    if path != "/api/events":
        assert guarded.get(path, Authorization=f"Bearer {TOKEN}").status == 200


def test_the_token_in_the_address_becomes_a_cookie(guarded):
    answer = guarded.get(f"/?token={TOKEN}")
    assert (answer.status, answer.headers["location"]) == (303, "/")
    cookie = answer.headers["set-cookie"]
    assert "httponly" in cookie.lower()
    assert "samesite=strict" in cookie.lower()
    assert TOKEN not in cookie
    pair = cookie.split(";")[0]
    assert guarded.get("/api/health", Cookie=pair).status == 200
    assert guarded.post("/api/tasks", {"prompt": "a fox"}, Cookie=pair).status == 201
    assert guarded.post("/api/tasks", {"prompt": "a fox"}, Cookie=pair, Origin=None).status == 403
    assert guarded.post("/api/tasks", {"prompt": "a fox"}, Cookie=pair, Origin="https://evil.example").status == 403
    assert guarded.get("/api/health", Cookie=f"{pair[:-1]}0").status in (200, 401)
    assert guarded.get("/api/health", Cookie=pair.replace("=", "=x")).status == 401


def test_programs_bear_the_token(guarded):
    bearer = {"Authorization": f"Bearer {TOKEN}"}
    assert guarded.post("/api/tasks", {"prompt": "a fox"}, Origin=None, **bearer).status == 201
    assert guarded.post("/api/tasks", {"prompt": "a fox"}, Origin="https://evil.example", **bearer).status == 403
    assert guarded.post("/api/tasks", {"prompt": "a fox"}, Content_Type="text/plain", **bearer).status == 415


def test_tokens_cannot_be_guessed_for_long(guarded, monkeypatch):
    monkeypatch.setattr(time, "time", lambda: 1e9)  # one minute
    answers = [guarded.get(f"/?token=wrong{n}").status for n in range(Rates().guesses + 2)]
    assert answers[0] == 401
    assert answers[-1] == 429
    assert guarded.get(f"/?token={TOKEN}").status == 429  # who hits it learns nothing


def test_bearers_cannot_be_guessed_for_long(guarded, monkeypatch):
    monkeypatch.setattr(time, "time", lambda: 1e9)  # one minute
    for n in range(Rates().guesses + 1):
        assert guarded.get("/api/health", Authorization=f"Bearer wrong{n}").status == 401
    assert guarded.get("/api/health", Authorization=f"Bearer {TOKEN}").status == 429


def test_events_need_the_token_and_hold_none(tmp_path):
    with studio_at(tmp_path, [TOKEN]) as client:
        task = client.make("a fox")
        client.until(task["id"], "SUCCEEDED")
        assert TOKEN not in json.dumps(events_of(client, after=0, until='"SUCCEEDED"'))
        assert TOKEN not in (tmp_path / "a-fox-0" / ".task.json").read_text()


# Where it listens


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "192.168.1.7", "studio.example.org", "10.0.0.1"])
def test_others_are_let_in_with_a_token_alone(host):
    with pytest.raises(UserError, match="--token"):
        door(host, 7860, ["studio.example.org"], ())
    assert door(host, 7860, ["studio.example.org"], (TOKEN,)).tokens == (TOKEN,)


@pytest.mark.parametrize("token", ["short", "", "a b c d e f g h i j k l m", "ä" * 20])
def test_weak_tokens_are_refused(token):
    with pytest.raises(UserError, match="a token needs"):
        door("127.0.0.1", 7860, [], (token,))


def test_hosts_are_whole_names():
    assert door("127.0.0.1", 7860, [], ()).hosts == {"localhost:7860", "127.0.0.1:7860", "[::1]:7860"}
    assert "localhost" in door("localhost", 80, [], ()).hosts
    assert door("192.168.1.7", 7860, ["Studio.example.org"], (TOKEN,)).hosts == {
        "192.168.1.7:7860", "studio.example.org", "studio.example.org:7860",
    }  # fmt: skip
    with pytest.raises(UserError, match="--hosts"):
        door("0.0.0.0", 7860, [], (TOKEN,))


# Too much


def test_large_requests_are_refused(client):
    assert client.post("/api/tasks", b" " * (LARGEST_BODY + 1)).status == 413
    lines = {"Host": client.host, **client.writing()}
    head = "POST /api/tasks HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    chunk = "10000\r\n" + " " * 65536 + "\r\n"
    assert b" 201 " not in raw(client, f"{head}Transfer-Encoding: chunked\r\n\r\n{chunk}{chunk}0\r\n\r\n")[:20]
    assert b" 413 " in raw(client, f"{head}Content-Length: 9999999999\r\n\r\n")[:20]
    assert b" 4" in raw(client, f"{head}Content-Length: -1\r\n\r\n")[:20]
    assert b" 4" in raw(client, f"{head}Content-Length: {'9' * 5000}\r\n\r\n")[:20]
    assert client.get("/api/tasks").json["total"] == 1


def test_who_asks_too_often_waits(client, monkeypatch):
    monkeypatch.setattr(time, "time", lambda: 1e9)  # one minute
    answers = [client.post("/api/tasks/none/cancel").status for _ in range(Rates().writes + 1)]
    assert (answers[0], answers[-1]) == (404, 429)
    assert client.get("/api/health").status == 200


def test_the_queue_is_limited(tmp_path):
    (tmp_path / ".studio").mkdir()
    index = Index(tmp_path / ".studio" / "index.sqlite3")
    studio = Studio(tmp_path, index, offers(()), limits=Limits(waiting=2, queue=3))
    made = [studio.submit(owner, {"prompt": "a fox"}) for owner in ("a", "a", "b")]
    assert [task.folder for task in made] == ["a-fox-0", "a-fox-0-1", "a-fox-0-2"]
    for owner in ("a", "b"):  # as many as one may have, as many as all may have
        with pytest.raises(Refused, match="waiting") as refused:
            studio.submit(owner, {"prompt": "a fox"})
        assert refused.value.status == 429
    studio.cancel(made[0])
    studio.submit("a", {"prompt": "a fox"})
    index.close()


def test_streams_are_counted(client, monkeypatch):
    monkeypatch.setattr(contents, "STREAMS", 1)
    with socket.create_connection(("127.0.0.1", client.port), timeout=10) as connection:
        connection.sendall(f"GET /api/events HTTP/1.1\r\nHost: {client.host}\r\n\r\n".encode())
        assert b"200" in connection.recv(100)
        assert client.get("/api/events").status == 503
    for _ in range(100):
        if events_of_status(client) == 200:
            return
        time.sleep(0.05)
    pytest.fail("a stream that was left still counts")


def events_of_status(client: Client) -> int:
    return int(raw(client, f"GET /api/events HTTP/1.1\r\nHost: {client.host}\r\n\r\n")[9:12])


def test_a_page_that_leaves_harms_no_task(client):
    task = client.make("a snake", steps=30)
    for _ in range(5):
        raw(client, f"GET /api/events HTTP/1.1\r\nHost: {client.host}\r\n\r\n")
    client.until(task["id"], "SUCCEEDED")
