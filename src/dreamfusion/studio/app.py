"""The routes of the studio: `openapi.json` describes them, and a test holds the two together."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from dreamfusion.config.presets import PRESETS
from dreamfusion.config.serialise import LARGEST
from dreamfusion.errors import UserError
from dreamfusion.studio import contents, scan
from dreamfusion.studio.asked import choice_in, number_in, object_in, own_task, studio_of, task_of
from dreamfusion.studio.batches import STATUSES, run_place
from dreamfusion.studio.index import SORTS, terms_of
from dreamfusion.studio.items import Row
from dreamfusion.studio.priors import EMBEDDED, understanding
from dreamfusion.studio.security import Door, Guard
from dreamfusion.studio.settings import described
from dreamfusion.studio.studio import FORMATS, Refused, Studio
from dreamfusion.studio.task import State
from dreamfusion.version import VERSION
from dreamfusion.vocabulary import no_sentences

PAGE_SIZE, LARGEST_PAGE = 24, 100
MOST_STEPS = 10**9
"""of a joint stage, as of a run"""


def application(studio: Studio, door: Door) -> Starlette:
    """The web application."""

    @asynccontextmanager
    async def life(app: Starlette) -> AsyncIterator[None]:
        await studio.start()
        yield
        await studio.close()

    app = Starlette(
        routes=[*_api(), *contents.pages()],
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
        Route("/api/events", contents.events, methods=["GET"]),
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
        Route("/api/tasks/{id}/curve", contents.curve, methods=["GET"]),
        Route("/api/tasks/{id}/files/{name}", contents.file, methods=["GET"]),
    ]


async def _unprocessable(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": str(error)}, 422)


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    return JSONResponse({"error": str(error)}, error.status)


# Routes


async def _health(request: Request) -> Response:
    studio = studio_of(request)
    return JSONResponse(
        {
            "status": "ok",
            "version": VERSION,
            "waiting": len(studio.foreman.queue()),
            "last_event": studio.catalogue.hub.last,
        }
    )


async def _options(request: Request) -> Response:
    offered = studio_of(request).offered.values()
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
    return JSONResponse({"settings": described(choice_in(request, "preset", PRESETS, "fast"))})


async def _understand(request: Request) -> Response:
    offered = studio_of(request).offered
    prior = choice_in(request, "prior", offered, next(iter(offered)))
    return JSONResponse(understanding(offered[prior], request.query_params.get("prompt", "")[:300]))


async def _queue(request: Request) -> Response:
    return JSONResponse({"queue": studio_of(request).foreman.queue()})


async def _search(request: Request) -> Response:
    asked = request.query_params.get("state", "")
    states = [State(name) for name in asked.split(",") if name in State.__members__] if asked else list(State)
    if asked and len(states) != len(asked.split(",")):
        raise UserError(f"state must be some of {', '.join(State.__members__)} with commas, not {asked!r}")
    page = number_in(request, "page", 1, 1_000_000)
    size = number_in(request, "size", PAGE_SIZE, LARGEST_PAGE)
    sort = choice_in(request, "sort", SORTS, "newest")
    found = studio_of(request).catalogue.index.search(
        request.query_params.get("query", "")[:300], states, sort, (page - 1) * size, size
    )
    pages = max(1, -(-found.total // size))
    tasks = [task.public() for task in found.tasks]
    return JSONResponse({"tasks": tasks, "total": found.total, "page": page, "pages": pages})


async def _runs(request: Request) -> Response:
    task, items = task_of(request), studio_of(request).catalogue.index.items
    if task.kind != "batch":
        raise Refused(404, "this task is no batch")
    status = request.query_params.get("status", "")
    if status:
        choice_in(request, "status", dict.fromkeys(STATUSES), "")
    page, size = number_in(request, "page", 1, 1_000_000), number_in(request, "size", PAGE_SIZE, LARGEST_PAGE)
    terms = terms_of(request.query_params.get("query", "")[:300])
    rows, total = items.search(task.folder, terms, status, (page - 1) * size, size)
    runs = await run_in_threadpool(lambda: [_run(studio_of(request).root, row) for row in rows])
    return JSONResponse({"runs": runs, "total": total, "page": page, "pages": max(1, -(-total // size))})


def _run(root: Path, row: Row) -> dict[str, Any]:
    """A run of a batch for its page."""
    item, state = row.item, row.item.state
    told = {name: getattr(item, name) for name in ("name", "line", "prompt", "seed", "status", "steps")}
    told |= {name: getattr(state, name) for name in ("step", "error", "attempt", "failures", "host", "seconds", "beat")}
    return {"id": row.id, **told, "picture": scan.has(root / run_place(row.batch, item.name), "preview.png")}


async def _submit(request: Request) -> Response:
    task = studio_of(request).submit(request.state.owner, await object_in(request))
    return JSONResponse(task.public(), 201, headers={"location": f"/api/tasks/{task.id}"})


async def _retry(request: Request) -> Response:
    task = studio_of(request).retry(request.state.owner, task_of(request), await object_in(request))
    return JSONResponse(task.public(), 201, headers={"location": f"/api/tasks/{task.id}"})


async def _task(request: Request) -> Response:
    return JSONResponse(task_of(request).public())


async def _cancel(request: Request) -> Response:
    return JSONResponse(studio_of(request).cancel(own_task(request)).public(), 202)


async def _resume(request: Request) -> Response:
    wanted = await object_in(request)
    task = studio_of(request).resume(request.state.owner, own_task(request), wanted.get("set_aside") is True)
    return JSONResponse(task.public(), 202)


async def _refine(request: Request) -> Response:
    wanted, task = await object_in(request), own_task(request)
    return JSONResponse(studio_of(request).refine(request.state.owner, task, wanted).public(), 202)


async def _delete(request: Request) -> Response:
    await studio_of(request).delete(own_task(request))
    return Response(status_code=204)


async def _export(request: Request) -> Response:
    wanted = await object_in(request)
    task = await studio_of(request).export(task_of(request), str(wanted.get("format")))
    return JSONResponse(task.public(), 201)


async def _compose(request: Request) -> Response:
    wanted, studio = await object_in(request), studio_of(request)
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
    wanted = await object_in(request)
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
    task = await studio_of(request).sentence(request.state.owner, sentence, seed, str(prior), joint)
    return JSONResponse(task.public(), 201, headers={"location": f"/api/tasks/{task.id}"})


def _asset(studio: Studio, asset: Any) -> dict[str, Any]:
    """An item as `compose` takes it, with the folder in place of the id. Raises UserError."""
    if not isinstance(asset, dict) or not isinstance(asset.get("id"), str) or "file" in asset:
        raise UserError("each of the assets must be an object with the id of a task")
    task = studio.task(asset["id"])
    if "mesh.glb" not in task.files:
        raise UserError(f"{task.prompt!r} has no mesh yet")
    return {**{name: value for name, value in asset.items() if name != "id"}, "file": task.folder}
