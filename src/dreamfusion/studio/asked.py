"""What routes take from a request: the studio, the task that its address names, the body, the query."""

import re
from collections.abc import Mapping
from typing import Any

from starlette.requests import Request

from dreamfusion import json_text
from dreamfusion.errors import UserError
from dreamfusion.studio.studio import Refused, Studio
from dreamfusion.studio.task import Task


def studio_of(request: Request) -> Studio:
    """The studio that is served."""
    return request.app.state.studio


def task_of(request: Request) -> Task:
    """The task that the address names. Raises Refused."""
    return studio_of(request).task(request.path_params["id"])


def own_task(request: Request) -> Task:
    """The task, if who asks may change it. Raises Refused."""
    task = task_of(request)
    if len(request.app.state.door.tokens) > 1 and task.owner != request.state.owner:
        raise Refused(403, "this task is another user's")
    return task


async def object_in(request: Request) -> dict[str, Any]:
    """The object in the body. Raises UserError."""
    body = await request.body()
    try:
        content = json_text.parse(body) if body else {}
    except ValueError as error:
        raise UserError(f"the request is no JSON ({error})") from error
    if not isinstance(content, dict):
        raise UserError("the request must be a JSON object")
    return content


def number_in(request: Request, name: str, default: int, largest: int) -> int:
    """A number of the query, 1 to `largest`. Raises UserError."""
    text = request.query_params.get(name, str(default))
    if not re.fullmatch("[0-9]{1,18}", text) or not 1 <= int(text) <= largest:
        raise UserError(f"{name} must be a number from 1 to {largest}, not {text!r}")
    return int(text)


def choice_in(request: Request, name: str, choices: Mapping[str, Any], default: str) -> str:
    """A word of the query that is one of some. Raises UserError."""
    text = request.query_params.get(name, default)
    if text not in choices:
        raise UserError(f"{name} must be one of {', '.join(choices)}, not {text!r}")
    return text
