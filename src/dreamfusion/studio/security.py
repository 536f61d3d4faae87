"""Who may ask for what: checked before any route, for every request (docs/studio.md says against what).

- `Host` must be a name under which the studio is visited: else a foreign site's name could be pointed at this machine.
- Whatever writes must come from the studio's own page (an `Origin` that is `http://` or `https://` and that host) or
  bear a token, and be JSON: a form or a script of another site can do neither.
- With tokens, everything but the token itself needs one: in the address once, then in a cookie that scripts cannot
  read and other sites do not send; programs send `Authorization: Bearer`.
"""

import hashlib
import hmac
import ipaddress
import re
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import parse_qs

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dreamfusion.errors import UserError

SHORTEST_TOKEN = 16
LARGEST_BODY = 64 * 1024
_GUESSED = "too many wrong tokens: wait a minute"
HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; media-src 'self';"
        " connect-src 'self' blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none';"
        " require-trusted-types-for 'script'; trusted-types 'none'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
}


@dataclass(frozen=True)
class Rates:
    """Requests a minute, of one user or, before we know who it is, of one address."""

    reads: int = 6000
    writes: int = 120
    guesses: int = 10
    """of tokens that are none"""


@dataclass
class Meter:
    """Counts requests in minutes of the clock."""

    minute: int = 0
    counts: dict[tuple[str, str], int] = field(default_factory=dict)

    def above(self, limit: int, what: str, who: str, count: int = 1) -> bool:
        """Count a request, or none; whether there were more than `limit` in this minute."""
        now = int(time.time() / 60)
        if now != self.minute:
            self.minute, self.counts = now, {}
        self.counts[what, who] = self.counts.get((what, who), 0) + count
        return self.counts[what, who] > limit


@dataclass(frozen=True)
class Door:
    """What the studio is told about its address and its users."""

    hosts: frozenset[str]
    """values of `Host` that are served, with the port where browsers send one"""
    tokens: tuple[str, ...] = ()
    rates: Rates = Rates()  # frozen

    def owner(self, headers: Headers) -> str | None:
        """The name of who asks, which does not reveal the token; None for who has no right to. "" without tokens."""
        if not self.tokens:
            return ""
        kind, _, bearer = headers.get("authorization", "").partition(" ")
        given = bearer if kind.lower() == "bearer" else ""
        cookies = _cookies(headers.get("cookie", ""))
        for token in self.tokens:
            if _same(given, token) or _same(cookies.get(self.cookie, ""), _proof(token)):
                return name_of(token)
        return None

    def proof(self, token: str) -> str | None:
        """What the cookie of a token holds; None for one that is none."""
        return next((_proof(own) for own in self.tokens if _same(token, own)), None)

    @property
    def cookie(self) -> str:
        """Its name: cookies do not tell ports apart."""
        return f"dreamfusion-{hashlib.sha256(min(self.hosts).encode()).hexdigest()[:8]}"


def door(host: str, port: int, names: Sequence[str], tokens: tuple[str, ...]) -> Door:
    """The door of a studio that is bound to `host`. Raises UserError for what would be unsafe."""
    local, anywhere = _is_local(host), host in ("0.0.0.0", "::", "")
    for token in tokens:
        if len(token) < SHORTEST_TOKEN or not token.isascii() or not token.isprintable() or " " in token:
            raise UserError(f"a token needs at least {SHORTEST_TOKEN} letters and digits: {_advice()}")
    if not local and not tokens:
        raise UserError(f"--host {host} lets others in, who need a token: {_advice()}")
    if anywhere and not names:
        raise UserError(f"--host {host} needs --hosts: the names or addresses by which browsers reach this machine")
    bound = () if anywhere else ("localhost", "127.0.0.1", "[::1]") if local else (_bracketed(host),)
    with_port = [f"{name.lower()}:{port}" for name in (*bound, *names)]
    plain = [name.lower() for name in (*(bound if port == 80 else ()), *names)]  # behind a proxy, or on the usual port
    return Door(frozenset([*with_port, *plain]), tokens)


def name_of(token: str) -> str:
    """Who has this token, in a word that does not reveal it."""
    return hashlib.sha256(f"owner {token}".encode()).hexdigest()[:8]


class Guard:
    """The door as ASGI middleware. Adds `owner` to the state of each request."""

    def __init__(self, app: ASGIApp, door: Door) -> None:
        self._app, self._door, self._meter = app, door, Meter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer what is not allowed; pass on all else."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        answer = self._refusal(scope)
        sender = _with_headers(send)
        if answer is not None:
            await answer(scope, receive, sender)
            return
        if (body := _Body(receive)).too_large(Headers(scope=scope)):
            await _no(413, f"a request has at most {LARGEST_BODY} bytes")(scope, receive, sender)
            return
        await self._app(scope, body, sender)

    def _refusal(self, scope: Scope) -> Response | None:
        headers, method = Headers(scope=scope), scope["method"]
        client = scope["client"][0] if scope.get("client") else ""
        hosts = [value.lower() for value in headers.getlist("host")]
        if len(hosts) != 1 or hosts[0] not in self._door.hosts:
            return _no(421, "this is no name of the studio: use the address that it printed, or start it with --hosts")
        if scope["path"] == "/" and (tokens := parse_qs(scope["query_string"].decode("latin-1")).get("token")):
            return self._let_in(tokens[-1], client)
        if "authorization" in headers and self._meter.above(self._door.rates.guesses, "guesses", client, 0):
            return _no(429, _GUESSED)  # also with the right one: else guessing would pay
        owner = self._door.owner(headers)
        if owner is None:
            return self._no_token(scope, headers, client)
        if method not in ("GET", "HEAD") and (answer := self._foreign(headers)):
            return answer
        kind, limit = (
            ("reads", self._door.rates.reads) if method in ("GET", "HEAD") else ("writes", self._door.rates.writes)
        )
        if self._meter.above(limit, kind, owner or client):
            return _no(429, f"more than {limit} requests a minute: wait a little")
        scope.setdefault("state", {})["owner"] = owner
        return None

    def _foreign(self, headers: Headers) -> Response | None:
        """The refusal of a request that writes, and may not."""
        own = [f"{scheme}://{headers['host'].lower()}" for scheme in ("http", "https")]
        origins = headers.getlist("origin")
        bears = bool(self._door.tokens) and "authorization" in headers and not origins
        if not bears and (len(origins) != 1 or origins[0] not in own):
            return _no(403, f"this must come from the studio's own page: send the header Origin: {own[0]}")
        if headers.get("content-type", "").split(";")[0].strip().lower() != "application/json":
            return _no(415, "this must be JSON: send the header Content-Type: application/json")
        return None

    def _no_token(self, scope: Scope, headers: Headers, client: str) -> Response:
        self._meter.above(self._door.rates.guesses, "guesses", client, int("authorization" in headers))
        message = "this studio needs a token: open the address that it printed, with ?token=..."
        if scope["path"] == "/":
            return Response(message, 401, media_type="text/plain")
        return _no(401, message)

    def _let_in(self, token: str, client: str) -> Response:
        """A cookie for the token in the address, and the address without it."""
        proof = self._door.proof(token)
        if self._meter.above(self._door.rates.guesses, "guesses", client, int(proof is None)):
            return _no(429, _GUESSED)
        if proof is None and self._door.tokens:
            return Response("this is no token of the studio", 401, media_type="text/plain")
        answer = RedirectResponse("/", 303)
        if proof is not None:
            answer.set_cookie(self._door.cookie, proof, max_age=30 * 86400, httponly=True, samesite="strict")
        return answer


class _Body:
    """The body of a request, which ends when it becomes too large."""

    def __init__(self, receive: Receive) -> None:
        self._receive, self._size = receive, 0

    def too_large(self, headers: Headers) -> bool:
        """Whether it says so."""
        length = headers.get("content-length", "0")
        return not re.fullmatch("[0-9]{1,18}", length) or int(length) > LARGEST_BODY

    async def __call__(self) -> Message:
        message = await self._receive()
        self._size += len(message.get("body", b""))
        if self._size > LARGEST_BODY:  # it said less, or nothing
            return {"type": "http.disconnect"}
        return message


def _with_headers(send: Send) -> Send:
    async def sender(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers[name] = value
            headers.setdefault("cache-control", "no-store")
        await send(message)

    return sender


def _no(status: int, message: str) -> JSONResponse:
    return JSONResponse({"error": message}, status)


def _proof(token: str) -> str:
    return hmac.new(token.encode(), b"cookie of the studio", hashlib.sha256).hexdigest()


def _same(given: str, right: str) -> bool:
    return hmac.compare_digest(given.encode(), right.encode())


def _cookies(header: str) -> Mapping[str, str]:
    pairs = (part.strip().partition("=") for part in header.split(";"))
    return {name: value for name, _, value in pairs}


def _is_local(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _advice() -> str:
    return f"give for example --token {secrets.token_urlsafe(18)}"
