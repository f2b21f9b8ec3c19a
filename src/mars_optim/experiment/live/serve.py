"""The server: an address, its page, and the end by Ctrl-C."""

from __future__ import annotations

import logging
import platform
import socket
from collections.abc import Callable
from pathlib import Path

from ...errors import UserError, need
from ..report import Messages
from .access import Access
from .app import App
from .watcher import Watcher

LIMITS = dict(
    threads=4,
    connection_limit=100,
    channel_timeout=60,
    max_request_header_size=16 * 1024,
    max_request_body_size=1024,
)
"""More than a browser asks for, and little enough for a machine that trains."""


def serve(
    out: Path,
    say: Messages,
    tell: Callable[[str], None],
    *,
    host: str,
    port: int = 0,
    token: bool = False,
    every: float = 5.0,
) -> None:
    """Serve the page of the pilot in ``out`` until Ctrl-C.

    Args:
        out: folder of the pilot; it is only read.
        say: texts of the page's language.
        tell: gets lines for the terminal.
        host: address to listen on; beyond the loopback a token is asked for.
        port: 0 for one that is free.
        token: ask for one on the loopback, too.
        every: seconds between looks.

    Raises:
        UserError: if there is no pilot in ``out``, waitress is not installed, or the address
            cannot be listened on.
        KeyboardInterrupt: at Ctrl-C.
    """
    watcher = Watcher(out, say, every=every)
    waitress_server = need("waitress.server", "serve")
    access = Access.of(host, token=token)
    with _listening(host, port) as listener:
        port = listener.getsockname()[1]
        app = App(watcher, access, port)
        for name in ("waitress", "waitress.queue"):
            logging.getLogger(name).setLevel(logging.ERROR)
        server = waitress_server.create_server(app, sockets=[listener], ident=None, **LIMITS)
        for line in _lines(out, host, port, access):
            tell(line)
        server.run()  # takes Ctrl-C for its end
    raise KeyboardInterrupt


def _listening(host: str, port: int) -> socket.socket:
    try:
        kind = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=kind)
    except (OSError, OverflowError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise UserError(
            f"--host {host} --port {port} cannot be opened: "
            f"{str(why).partition(' (while')[0]}; --host must be an address of this machine; "
            "leave --port out to take a free port"
        ) from None


def _lines(out: Path, host: str, port: int, access: Access) -> list[str]:
    """Lines for the terminal: the address, and what to know about it."""
    everywhere = host in ("0.0.0.0", "::")
    name = platform.node() if everywhere else host
    shown = f"[{name}]" if ":" in name else name
    query = f"?token={access.token}" if access.token else ""
    lines = [f"{out} at http://{shown}:{port}/{query}", "Ctrl-C ends this page, not the pilot."]
    if not access.local:
        lines.append(
            "Who can read this network's traffic can read the page. "
            f"Without --host, `ssh -L {port}:127.0.0.1:{port} MACHINE` keeps it private."
        )
    return lines
