"""The routes of the studio: `openapi.json` describes them, and a test holds the two together."""

import asyncio
import io
import re
import zipfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from importlib.resources import files as resources
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from dreamfusion import json_text
from dreamfusion.config.presets import PRESETS
from dreamfusion.config.serialise import LARGEST
from dreamfusion.errors import UserError
from dreamfusion.runs import RunFolder
from dreamfusion.studio import scan
from dreamfusion.studio.batches import STATUSES, run_place
from dreamfusion.studio.events import number_of
from dreamfusion.studio.index import SORTS, terms_of
from dreamfusion.studio.items import Row
from dreamfusion.studio.priors import EMBEDDED, understanding
from dreamfusion.studio.security import Door, Guard
from dreamfusion.studio.settings import described
from dreamfusion.studio.studio import FORMATS, Refused, Studio
from dreamfusion.studio.task import State, Task
from dreamfusion.version import VERSION
from dreamfusion.viewer import SCRIPTS
from dreamfusion.vocabulary import no_sentences

PAGE_SIZE, LARGEST_PAGE = 24, 100
STREAMS = 512
"""event streams at a time"""
SEND_SECONDS = 30.0
"""that a reader of a stream may take for a message before it is given up"""
MOST_STEPS = 10**9
"""of a joint stage, as of a run"""
POINTS = 240
"""of a curve"""
_SHOWN = {".glb": "model/gltf-binary", ".png": "image/png", ".webp": "image/webp", ".mp4": "video/mp4"}
"""types of files that a page shows; all others are saved"""
_BUNDLES = {"obj.zip": ("mesh.obj", "mesh.mtl", "mesh.png"), "all.zip": tuple(scan.FILES)}
_TYPES = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".json": "application/json",
    ".svg": "image/svg+xml",
}


def application(studio: Studio, door: Door) -> Starlette:
    """The web application."""

    @asynccontextmanager
    async def life(app: Starlette) -> AsyncIterator[None]:
        await studio.start()
        yield
        await studio.close()

    app = Starlette(
        routes=[*_api(), *_pages()],
        middleware=[Middleware(Guard, door=door)],
        exception_handlers={UserError: _unprocessable, Refused: _refused, ClientDisconnect: _unprocessable},
        lifespan=life,
    )
    app.router.redirect_slashes = False
    app.state.studio, app.state.door, app.state.streams = studio, door, 0
    return app


def _api() -> list[Route]:
    return [
        Route("/api/health", _health, methods=["GET"]),
        Route("/api/options", _options, methods=["GET"]),
        Route("/api/settings", _settings, methods=["GET"]),
        Route("/api/understand", _understand, methods=["GET"]),
        Route("/api/events", _events, methods=["GET"]),
        Route("/api/queue", _queue, methods=["GET"]),
        Route("/api/tasks", _search, methods=["GET"]),
        Route("/api/tasks", _submit, methods=["POST"]),
        Route("/api/scenes", _compose, methods=["POST"]),
        Route("/api/sentences", _sentence, methods=["POST"]),
        Route("/api/tasks/{id}", _task, methods=["GET"]),
        Route("/api/tasks/{id}", _delete, methods=["DELETE"]),
        Route("/api/tasks/{id}/cancel", _cancel, methods=["POST"]),
        Route("/api/tasks/{id}/resume", _resume, methods=["POST"]),
        Route("/api/tasks/{id}/retry", _retry, methods=["POST"]),
        Route("/api/tasks/{id}/refine", _refine, methods=["POST"]),
        Route("/api/tasks/{id}/exports", _export, methods=["POST"]),
        Route("/api/tasks/{id}/runs", _runs, methods=["GET"]),
        Route("/api/tasks/{id}/curve", _curve, methods=["GET"]),
        Route("/api/tasks/{id}/files/{name}", _file, methods=["GET"]),
    ]


def _pages() -> list[Route]:
    """The files of the page, read once: no request names a path."""
    home, viewer = resources("dreamfusion.studio") / "static", resources("dreamfusion.viewer")
    contents = {f"/static/{item.name}": item.read_bytes() for item in home.iterdir() if item.is_file()}
    scripts = "\n".join(viewer.joinpath(name).read_text(encoding="utf-8") for name in SCRIPTS)
    contents["/static/viewer.js"] = f"{scripts}\nexport {{ groundShadow, openStage, surfaceMaterial }};\n".encode()
    contents["/static/three.js"] = viewer.joinpath("vendor/three.min.js").read_bytes()
    contents["/"] = contents.pop("/static/index.html")
    contents["/api/openapi.json"] = contents.pop("/static/openapi.json")
    return [Route(path, _static(path, content), methods=["GET"]) for path, content in contents.items()]


def _static(path: str, content: bytes) -> Any:
    kind = _TYPES[Path(path).suffix or ".html"]

    async def answer(request: Request) -> Response:
        return Response(content, media_type=kind, headers={"cache-control": "no-cache"})

    return answer


# What every route needs


def _studio(request: Request) -> Studio:
    return request.app.state.studio


def _found(request: Request) -> Task:
    return _studio(request).task(request.path_params["id"])


def _own(request: Request) -> Task:
    """The task, if who asks may change it. Raises Refused."""
    task = _found(request)
    if len(request.app.state.door.tokens) > 1 and task.owner != request.state.owner:
        raise Refused(403, "this task is another user's")
    return task


async def _object(request: Request) -> dict[str, Any]:
    """The object in the body. Raises UserError."""
    body = await request.body()
    try:
        content = json_text.parse(body) if body else {}
    except ValueError as error:
        raise UserError(f"the request is no JSON ({error})") from error
    if not isinstance(content, dict):
        raise UserError("the request must be a JSON object")
    return content


def _number(request: Request, name: str, default: int, largest: int) -> int:
    text = request.query_params.get(name, str(default))
    if not re.fullmatch("[0-9]{1,18}", text) or not 1 <= int(text) <= largest:
        raise UserError(f"{name} must be a number from 1 to {largest}, not {text!r}")
    return int(text)


def _choice(request: Request, name: str, choices: Mapping[str, Any], default: str) -> str:
    text = request.query_params.get(name, default)
    if text not in choices:
        raise UserError(f"{name} must be one of {', '.join(choices)}, not {text!r}")
    return text


async def _unprocessable(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": str(error)}, 422)


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    return JSONResponse({"error": str(error)}, error.status)


# Routes


async def _health(request: Request) -> Response:
    studio = _studio(request)
    return JSONResponse(
        {
            "status": "ok",
            "version": VERSION,
            "waiting": len(studio.foreman.queue()),
            "last_event": studio.catalogue.hub.last,
        }
    )


async def _options(request: Request) -> Response:
    offered = _studio(request).offered.values()
    priors = [
        {
            "name": each.name,
            "title": each.lexicon.name,
            "nouns": each.nouns,
            "colours": each.colours,
            "preset": each.preset,
            "no_joint": no_sentences(each.lexicon),
        }
        for each in offered
    ]
    return JSONResponse(
        {
            "owner": request.state.owner,
            "shared": len(request.app.state.door.tokens) > 1,
            "priors": priors,
            "presets": list(PRESETS),
            "formats": FORMATS,
            "sorts": list(SORTS),
        }
    )


async def _settings(request: Request) -> Response:
    return JSONResponse({"settings": described(_choice(request, "preset", PRESETS, "fast"))})


async def _understand(request: Request) -> Response:
    offered = _studio(request).offered
    prior = _choice(request, "prior", offered, next(iter(offered)))
    return JSONResponse(understanding(offered[prior], request.query_params.get("prompt", "")[:300]))


async def _queue(request: Request) -> Response:
    return JSONResponse({"queue": _studio(request).foreman.queue()})


async def _search(request: Request) -> Response:
    asked = request.query_params.get("state", "")
    states = [State(name) for name in asked.split(",") if name in State.__members__] if asked else list(State)
    if asked and len(states) != len(asked.split(",")):
        raise UserError(f"state must be some of {', '.join(State.__members__)} with commas, not {asked!r}")
    page = _number(request, "page", 1, 1_000_000)
    size = _number(request, "size", PAGE_SIZE, LARGEST_PAGE)
    sort = _choice(request, "sort", SORTS, "newest")
    found = _studio(request).catalogue.index.search(
        request.query_params.get("query", "")[:300], states, sort, (page - 1) * size, size
    )
    pages = max(1, -(-found.total // size))
    tasks = [task.public() for task in found.tasks]
    return JSONResponse({"tasks": tasks, "total": found.total, "page": page, "pages": pages})


async def _runs(request: Request) -> Response:
    task, items = _found(request), _studio(request).catalogue.index.items
    if task.kind != "batch":
        raise Refused(404, "this task is no batch")
    status = request.query_params.get("status", "")
    if status:
        _choice(request, "status", dict.fromkeys(STATUSES), "")
    page, size = _number(request, "page", 1, 1_000_000), _number(request, "size", PAGE_SIZE, LARGEST_PAGE)
    terms = terms_of(request.query_params.get("query", "")[:300])
    rows, total = items.search(task.folder, terms, status, (page - 1) * size, size)
    runs = await run_in_threadpool(lambda: [_run(_studio(request).root, row) for row in rows])
    return JSONResponse({"runs": runs, "total": total, "page": page, "pages": max(1, -(-total // size))})


def _run(root: Path, row: Row) -> dict[str, Any]:
    """A run of a batch for its page."""
    item, state = row.item, row.item.state
    told = {name: getattr(item, name) for name in ("name", "line", "prompt", "seed", "status", "steps")}
    told |= {name: getattr(state, name) for name in ("step", "error", "attempt", "failures", "host", "seconds", "beat")}
    return {"id": row.id, **told, "picture": scan.has(root / run_place(row.batch, item.name), "preview.png")}


async def _submit(request: Request) -> Response:
    task = _studio(request).submit(request.state.owner, await _object(request))
    return JSONResponse(task.public(), 201, headers={"location": f"/api/tasks/{task.id}"})


async def _retry(request: Request) -> Response:
    task = _studio(request).retry(request.state.owner, _found(request), await _object(request))
    return JSONResponse(task.public(), 201, headers={"location": f"/api/tasks/{task.id}"})


async def _task(request: Request) -> Response:
    return JSONResponse(_found(request).public())


async def _cancel(request: Request) -> Response:
    return JSONResponse(_studio(request).cancel(_own(request)).public(), 202)


async def _resume(request: Request) -> Response:
    wanted = await _object(request)
    task = _studio(request).resume(request.state.owner, _own(request), wanted.get("set_aside") is True)
    return JSONResponse(task.public(), 202)


async def _refine(request: Request) -> Response:
    wanted, task = await _object(request), _own(request)
    return JSONResponse(_studio(request).refine(request.state.owner, task, wanted).public(), 202)


async def _delete(request: Request) -> Response:
    await _studio(request).delete(_own(request))
    return Response(status_code=204)


async def _export(request: Request) -> Response:
    wanted = await _object(request)
    task = await _studio(request).export(_found(request), str(wanted.get("format")))
    return JSONResponse(task.public(), 201)


async def _compose(request: Request) -> Response:
    wanted, studio = await _object(request), _studio(request)
    unknown = sorted(set(wanted) - {"title", "assets"})
    if unknown:
        raise UserError(f"unknown setting {unknown[0]}: remove it, or check its spelling")
    title, assets = wanted.get("title"), wanted.get("assets")
    if not isinstance(title, str) or not any(map(str.isalnum, title)) or len(title) > 300:
        raise UserError("title must be a text of at most 300 characters")
    if not isinstance(assets, list) or not 1 <= len(assets) <= 50:
        raise UserError("assets must be a list of 1 to 50 objects")
    placed = [_asset(studio, asset) for asset in assets]
    task = await studio.compose(request.state.owner, title, placed)
    return JSONResponse(task.public(), 201, headers={"location": f"/api/tasks/{task.id}"})


async def _sentence(request: Request) -> Response:
    wanted = await _object(request)
    unknown = sorted(set(wanted) - {"sentence", "seed", "prior", "joint"})
    if unknown:
        raise UserError(f"unknown setting {unknown[0]}: remove it, or check its spelling")
    sentence, seed, prior = wanted.get("sentence"), wanted.get("seed", 0), wanted.get("prior", EMBEDDED)
    if not isinstance(sentence, str) or not any(map(str.isalnum, sentence)) or len(sentence) > 300:
        raise UserError("sentence must be a text of at most 300 characters")
    joint = wanted.get("joint", 0)
    for name, value, largest in (("seed", seed, LARGEST), ("joint", joint, MOST_STEPS)):
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= largest:
            raise UserError(f"{name} must be a number from 0 to {largest}, not {value!r}")
    task = await _studio(request).sentence(request.state.owner, sentence, seed, str(prior), joint)
    return JSONResponse(task.public(), 201, headers={"location": f"/api/tasks/{task.id}"})


def _asset(studio: Studio, asset: Any) -> dict[str, Any]:
    """An item as `compose` takes it, with the folder in place of the id. Raises UserError."""
    if not isinstance(asset, dict) or not isinstance(asset.get("id"), str) or "file" in asset:
        raise UserError("each of the assets must be an object with the id of a task")
    task = studio.task(asset["id"])
    if "mesh.glb" not in task.files:
        raise UserError(f"{task.prompt!r} has no mesh yet")
    return {**{name: value for name, value in asset.items() if name != "id"}, "file": task.folder}


async def _curve(request: Request) -> Response:
    folder = scan.log_of(_studio(request).root, _found(request))
    return JSONResponse(await run_in_threadpool(_points, folder))


def _points(folder: RunFolder) -> dict[str, Any]:
    """Steps, opacity and losses of some of the steps, the last one included."""
    records = folder.read_metrics()
    chosen = records[:: -(-len(records) // POINTS) or 1]
    if records and chosen[-1] is not records[-1]:
        chosen.append(records[-1])
    names = sorted({name for record in chosen for name in record.get("losses", {})})
    return {
        "steps": [record["step"] for record in chosen],
        "opacity": [record.get("opacity") for record in chosen],
        "losses": {name: [record.get("losses", {}).get(name) for record in chosen] for name in names},
    }


async def _file(request: Request) -> Response:
    task, name = _found(request), request.path_params["name"]
    folder = _studio(request).root / task.folder
    there = scan.present(folder)
    stem = folder.name
    if name in _BUNDLES:
        wanted = [each for each in _BUNDLES[name] if each in there]
        if _BUNDLES[name][0] not in there and name != "all.zip":
            raise Refused(404, f"this task has no {_BUNDLES[name][0]}: make it first")
        content = await run_in_threadpool(_zipped, folder, wanted)
        return Response(content, media_type="application/zip", headers=_saved(f"{stem}-{name}"))
    if name not in there:
        raise Refused(404, f"this task has no file {name!r}")
    kind = _SHOWN.get(Path(name).suffix)
    headers = {"cache-control": "private, no-cache"}
    if kind is None or "save" in request.query_params:
        headers |= _saved(f"{stem}-{name}")
    return FileResponse(folder / scan.FILES[name], media_type=kind or "application/octet-stream", headers=headers)


def _saved(name: str) -> dict[str, str]:
    """The header with which a browser saves an answer. Names of folders may hold anything."""
    plain = "".join(letter if letter.isascii() and (letter.isalnum() or letter in "-._") else "-" for letter in name)
    return {"content-disposition": f'attachment; filename="{plain}"'}


def _zipped(folder: Path, names: list[str]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as bundle:
        for name in names:
            bundle.write(folder / scan.FILES[name], f"{folder.name}/{name}")
    return file.getvalue()


async def _events(request: Request) -> Response:
    state = request.app.state
    if state.streams >= STREAMS:
        raise Refused(503, "too many pages are open: close one")
    after = number_of(request.headers.get("last-event-id") or request.query_params.get("after"))
    return _Stream(_studio(request).catalogue.hub.stream(after), state)


class _Stream(StreamingResponse):
    """An event stream that is counted, and whose reader may not stand still."""

    def __init__(self, content: AsyncIterator[str], state: Any) -> None:
        headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
        super().__init__(content, media_type="text/event-stream", headers=headers)
        self._state = state

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._state.streams += 1
        try:
            await super().__call__(scope, receive, lambda message: asyncio.wait_for(send(message), SEND_SECONDS))
        except asyncio.TimeoutError:
            pass  # the connection is closed with this
        finally:
            self._state.streams -= 1
