"""Routes that answer with more than a small object: the page's own files, those of tasks, curves, the event stream."""

import asyncio
import io
import zipfile
from collections.abc import AsyncIterator
from importlib.resources import files as resources
from pathlib import Path
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from dreamfusion.runs import RunFolder
from dreamfusion.studio import scan
from dreamfusion.studio.asked import studio_of, task_of
from dreamfusion.studio.events import number_of
from dreamfusion.studio.studio import Refused
from dreamfusion.viewer import SCRIPTS

STREAMS = 512
"""event streams at a time"""
SEND_SECONDS = 30.0
"""that a reader of a stream may take for a message before it is given up"""
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


def pages() -> list[Route]:
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


async def curve(request: Request) -> Response:
    """How a run, or the joint stage of a scene, went so far."""
    folder = scan.log_of(studio_of(request).root, task_of(request))
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


async def file(request: Request) -> Response:
    """One file of a task, or several as a bundle."""
    task, name = task_of(request), request.path_params["name"]
    folder = studio_of(request).root / task.folder
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


async def events(request: Request) -> Response:
    """The stream of events."""
    state = request.app.state
    if state.streams >= STREAMS:
        raise Refused(503, "too many pages are open: close one")
    after = number_of(request.headers.get("last-event-id") or request.query_params.get("after"))
    return _Stream(studio_of(request).catalogue.hub.stream(after), state)


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
