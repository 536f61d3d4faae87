"""Start the studio and serve it until it is asked to end."""

import asyncio
import socket
import threading
import webbrowser
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import uvicorn

from dreamfusion.claims import owned
from dreamfusion.config.check import require_device_name
from dreamfusion.errors import UserError
from dreamfusion.studio.app import application
from dreamfusion.studio.index import Index
from dreamfusion.studio.priors import offers
from dreamfusion.studio.security import door
from dreamfusion.studio.studio import HOME, Studio

CONNECTIONS = 1000
"""at a time; more are turned away"""


@dataclass(frozen=True)
class Address:
    """Where the studio is, and who may come."""

    host: str = "127.0.0.1"
    port: int = 7860
    hosts: tuple[str, ...] = ()
    tokens: tuple[str, ...] = ()


def serve(
    root: Path, address: Address, devices: Sequence[str], priors: Sequence[str], ready: Callable[[str], None]
) -> None:
    """Serve the runs under `root`; `ready` is told the address of the page. Returns after Ctrl-C or SIGTERM.

    Raises UserError for what would not work or not be safe, before anything is begun.
    """
    with opened(root, address, devices, priors) as server:
        ready(_page(address))
        asyncio.run(server.serve())


@contextmanager
def opened(root: Path, address: Address, devices: Sequence[str], priors: Sequence[str]) -> Iterator["Server"]:
    """A studio that listens and only has to be served, in this thread. Raises UserError as `serve`."""
    for device in devices:
        require_device_name(device)
    known = door(address.host, address.port, address.hosts, address.tokens)
    offered = offers(priors)
    with ExitStack() as stack:
        stack.enter_context(owned(root / HOME))
        connection = stack.enter_context(_bound(address))
        index = stack.enter_context(closing(Index(root / HOME / "index.sqlite3")))
        studio = Studio(root.resolve(), index, offered, devices)
        settings = uvicorn.Config(
            application(studio, known),
            log_level="warning",
            ws="none",
            lifespan="on",
            server_header=False,
            proxy_headers=False,
            limit_concurrency=CONNECTIONS,
            timeout_graceful_shutdown=3,
        )
        yield Server(settings, studio, connection)


class Server(uvicorn.Server):
    """Ends the event streams first: a page that stays open must not keep the server from ending."""

    def __init__(self, config: uvicorn.Config, studio: Studio, connection: socket.socket) -> None:
        super().__init__(config)
        self._studio, self._connection = studio, connection

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """Until it is asked to end: by a signal, or `should_exit`."""
        await super().serve(sockets or [self._connection])

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn does."""
        self._studio.catalogue.hub.end()
        await super().shutdown(sockets)


def _bound(address: Address) -> socket.socket:
    """The socket, before anything is begun. Raises UserError where the port is taken."""
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    connection = socket.socket(family)
    try:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        connection.bind((address.host, address.port))
        connection.listen(2048)
    except (OSError, OverflowError) as error:
        connection.close()
        raise UserError(
            f"port {address.port} of {address.host} cannot be used ({error}): choose another --port"
        ) from error
    return connection


def _page(address: Address) -> str:
    """The address to open, with the first token: it goes into a cookie with the first visit."""
    anywhere = address.host in ("0.0.0.0", "::", "")
    host = address.hosts[0] if anywhere else f"[{address.host}]" if ":" in address.host else address.host
    port = "" if ":" in host and not host.endswith("]") else f":{address.port}"
    return f"http://{host}{port}/" + (f"?token={address.tokens[0]}" if address.tokens else "")


def show(page: str) -> None:
    """Open the page in the system's browser, a moment later, when it is served."""

    def open_it() -> None:
        with suppress(webbrowser.Error):
            webbrowser.open(page)

    threading.Timer(1.0, open_it).start()
