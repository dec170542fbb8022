"""Who may ask by the names that a request gives: the Host it was sent to, and the Origin of the page that sent it.

A page of another site can make a browser ask a server on this machine, directly or by a name of its own that it lets
point to 127.0.0.1 (DNS rebinding). Browsers tell the name in Host and the page in Origin, and pages cannot change them.
"""

import ipaddress
import socket
from collections.abc import Awaitable, Callable, Iterable
from typing import Any
from urllib.parse import urlsplit

from fastapi.responses import JSONResponse

from vocabtransfer.errors import UsageError
from vocabtransfer.serving.protocol import ApiProblem

ANY = "*"


class Visitors:
    """The names that are let in.

    Always: this machine's own names and addresses; where the server listens on another address than the loopback, every
    address (a rebound name is no address) and the machine's host name. ``hosts`` are more names, ``origins`` the pages
    that may ask, such as ``https://chat.example``; ``*`` in either lets all in.
    """

    def __init__(self, address: str = "127.0.0.1", hosts: Iterable[str] = (), origins: Iterable[str] = ()) -> None:
        """Raises `UsageError` for hosts and origins that are none."""
        self._hosts = {_host_name(host) for host in hosts}
        self._origins = {_origin(origin) for origin in origins}
        self._addresses = not _is_loopback(address)
        own = {address.lower(), *({socket.gethostname().lower(), socket.getfqdn().lower()} if self._addresses else ())}
        self._own = own - {"", "0.0.0.0", "::"}

    def knows(self, host: str) -> bool:
        """Tell whether a Host header, ``name`` or ``name:port``, is let in."""
        name = split_host(host)
        if name is None:
            return False
        if ANY in self._hosts or name in self._hosts or name in self._own or _is_loopback(name):
            return True
        return self._addresses and _is_address(name)

    def welcomes(self, origin: str, host: str) -> bool:
        """Tell whether an Origin is let in: the server's own, or one that was named."""
        return ANY in self._origins or origin.lower() in self._origins or origin.lower() == f"http://{host.lower()}"

    def problem(self, headers: Iterable[tuple[bytes, bytes]]) -> ApiProblem | None:
        """Return why a request with these headers is refused; None for one that is let in."""
        given = [(name.lower(), value.decode("latin-1").strip()) for name, value in headers]
        hosts = [value for name, value in given if name == b"host"]
        stranger = next((host for host in hosts if not self.knows(host)), None)
        if stranger is not None:
            return ApiProblem(
                403,
                f"This server does not answer to the name {stranger[:100]!r}: ask it by its address, or start it with "
                "`vocabtransfer serve --allow-host`.",
                code="host_not_allowed",
            )
        for name, origin in given:
            if name == b"origin" and not self.welcomes(origin, hosts[0] if hosts else ""):
                return ApiProblem(
                    403,
                    f"Pages of {origin[:100]!r} may not ask this server: start it with "
                    "`vocabtransfer serve --allow-origin`.",
                    code="origin_not_allowed",
                )
        return None

    @property
    def origins(self) -> list[str]:
        """The pages that may ask, for the headers by which browsers are told so."""
        return sorted(self._origins)


class Door:
    """Refuses what `Visitors` does not let in, before anything else is looked at."""

    def __init__(self, app: Callable[..., Awaitable[None]], visitors: Visitors) -> None:
        self._app, self._visitors = app, visitors

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer 403, or hand the request on."""
        problem = self._visitors.problem(scope["headers"]) if scope["type"] == "http" else None
        if problem is not None:
            await JSONResponse(problem.body, problem.status)(scope, receive, send)
            return
        await self._app(scope, receive, send)


def split_host(host: str) -> str | None:
    """Return the name in a Host header, in small letters and without brackets; None for what is no host."""
    try:
        parts = urlsplit(f"//{host}")
        _ = parts.port
    except ValueError:
        return None
    whole = not (parts.path or parts.query or parts.fragment) and "@" not in host
    name = (parts.hostname or "").removesuffix(".")
    return name if whole and name else None


def _host_name(host: str) -> str:
    name = ANY if host == ANY else split_host(host)
    if name is None:
        raise UsageError(f"`hosts` is a name such as gpu-server or chat.example, not {host!r}.")
    return name


def _origin(origin: str) -> str:
    parts = urlsplit(origin)
    if origin != ANY and (not parts.scheme or not parts.netloc or parts.path.strip("/") or parts.query):
        raise UsageError(f"`origins` is a page's origin such as https://chat.example, not {origin!r}.")
    return origin.lower().rstrip("/")


def _is_loopback(name: str) -> bool:
    if name == "localhost" or name.endswith(".localhost"):
        return True
    return _is_address(name) and ipaddress.ip_address(name).is_loopback


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
