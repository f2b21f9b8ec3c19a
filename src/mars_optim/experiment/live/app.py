"""The page as a WSGI application: a few addresses, all of them read-only."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...files import no_link
from . import render
from .access import Access
from .watcher import REPORTS, Watcher

Start = Callable[[str, list[tuple[str, str]]], Any]

OURS = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Sources that the page may load: its own script, style and pictures."""
STYLED = (
    "default-src 'none'; style-src 'unsafe-inline'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""For what holds its own style and no script: pictures and reports."""
PICTURES = {f"/{name}.svg": name for name in ("comparison", "tuning")}


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer."""

    body: str | bytes = ""
    kind: str = "text/plain"
    status: str = "200 OK"
    policy: str = OURS
    headers: dict[str, str] = field(default_factory=dict)


NOT_FOUND = Answer("There is no such page here.\n", status="404 Not Found")
WRONG_METHOD = Answer(
    "This page can only be read.\n", status="405 Method Not Allowed", headers={"Allow": "GET, HEAD"}
)
WRONG_HOST = Answer(
    "This page is read at localhost or 127.0.0.1 only, and was asked for by another name.\n",
    status="403 Forbidden",
)
NO_TOKEN = Answer(
    "This page needs its token: open the address that `mars watch --serve` printed, token "
    "included.\n",
    status="403 Forbidden",
)


class App:
    """Answers requests about one pilot.

    Args:
        watcher: of the pilot.
        access: who may read.
        port: that is listened on; names the cookie, since cookies know no ports.
    """

    def __init__(self, watcher: Watcher, access: Access, port: int) -> None:
        self._watcher, self._access = watcher, access
        self._cookie = f"mars-watch-{port}"

    def __call__(self, environ: dict[str, Any], start: Start) -> Iterable[bytes]:
        """The WSGI call."""
        answer = self._answer(environ)
        body = answer.body.encode() if isinstance(answer.body, str) else answer.body
        headers = {
            "Content-Type": f"{answer.kind}; charset=utf-8",
            "Content-Length": str(len(body)),
            "Content-Security-Policy": answer.policy,
            "Cache-Control": "no-store",
            "Cross-Origin-Opener-Policy": "same-origin",
            "Cross-Origin-Resource-Policy": "same-origin",
            "Referrer-Policy": "no-referrer",
            "X-Content-Type-Options": "nosniff",
            **answer.headers,
        }
        start(answer.status, list(headers.items()))
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]

    def _answer(self, environ: dict[str, Any]) -> Answer:
        """A refusal, if a rule refuses; otherwise the requested page."""
        path = environ.get("PATH_INFO", "/")
        if not self._access.knows_host(environ.get("HTTP_HOST", "")):
            return WRONG_HOST
        if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
            return WRONG_METHOD
        if path == "/" and self._access.has_token(environ.get("QUERY_STRING", "")):
            return self._exchange()
        if not self._access.has_cookie(environ.get("HTTP_COOKIE", ""), self._cookie):
            return NO_TOKEN
        return self._read(path, environ.get("HTTP_IF_NONE_MATCH", ""))

    def _exchange(self) -> Answer:
        """The cookie for the token, and on to the page without it.

        By a page that leads on, not by a redirect: a strict cookie is not sent with the redirect of
        a link from another site, such as a chat.
        """
        cookie = f"{self._cookie}={self._access.cookie}; Path=/; HttpOnly; SameSite=Strict"
        return Answer(render.static("enter.html"), "text/html", headers={"Set-Cookie": cookie})

    def _read(self, path: str, known: str) -> Answer:
        watcher = self._watcher
        if path == "/":
            return Answer(render.page(watcher.view(), watcher.say, watcher.every), "text/html")
        if path == "/state.json":
            return self._state(known)
        if path in PICTURES:
            picture = watcher.picture(PICTURES[path])
            return Answer(picture, "image/svg+xml", policy=STYLED) if picture else NOT_FOUND
        if path == "/live.css":
            return Answer(render.style(), "text/css")
        if path == "/live.js":
            return Answer(render.static("live.js"), "text/javascript")
        if path == "/icon.svg":
            return Answer(render.static("icon.svg"), "image/svg+xml")
        return next((self._report(name) for name in REPORTS if path == f"/{name}"), NOT_FOUND)

    def _state(self, known: str) -> Answer:
        """The parts, or that they are those that the page has."""
        body, version = render.state(self._watcher.view(), self._watcher.say)
        tag = {"ETag": f'"{version}"'}
        if known == tag["ETag"]:
            return Answer(status="304 Not Modified", headers=tag)
        return Answer(body, "application/json", headers=tag)

    def _report(self, name: str) -> Answer:
        """A report of the pilot's folder: one of a few names, and no link to elsewhere."""
        try:
            with open(self._watcher.out / Path(name).name, "rb", opener=no_link) as file:
                return Answer(file.read(), "text/html", policy=STYLED)
        except OSError:
            return NOT_FOUND
