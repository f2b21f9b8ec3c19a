"""Who may read the page: by the name that is asked for, and by a token."""

from __future__ import annotations

import ipaddress
import secrets
from dataclasses import dataclass, field
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs, urlsplit

BYTES = 32
"""Bytes of a token: too many to guess."""


def is_loopback(host: str) -> bool:
    """Whether a name or an address is this very machine's loopback."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@dataclass(frozen=True, slots=True)
class Access:
    """The rule of one server.

    Args:
        token: that is asked for; empty for none.
        local: whether the page is asked for by a name of the loopback only. A page of another
            site cannot reach it by a name of its own that leads here (DNS rebinding).
        cookie: value of the cookie that takes the token's place.
    """

    token: str
    local: bool
    cookie: str = field(default_factory=lambda: secrets.token_urlsafe(BYTES))

    @classmethod
    def of(cls, host: str, *, token: bool) -> Access:
        """The rule for an address: beyond the loopback always with a token."""
        local = is_loopback(host)
        asked = token or not local
        return cls(secrets.token_urlsafe(BYTES) if asked else "", local)

    def knows_host(self, header: str) -> bool:
        """Whether the page may be asked for by this name, with whatever port (as of a tunnel)."""
        try:
            return not self.local or is_loopback(urlsplit(f"//{header}").hostname or "")
        except ValueError:
            return False

    def has_token(self, query: str) -> bool:
        """Whether a query holds the token."""
        given = parse_qs(query).get("token", [""])[0]
        return bool(self.token) and _equal(given, self.token)

    def has_cookie(self, header: str, name: str) -> bool:
        """Whether the cookie's header lets its sender read; always where no token is asked for."""
        if not self.token:
            return True
        try:
            morsel = SimpleCookie(header).get(name)
        except CookieError:
            return False
        return morsel is not None and _equal(morsel.value, self.cookie)


def _equal(given: str, right: str) -> bool:
    """In a time that tells nothing of how much is right."""
    return secrets.compare_digest(given.encode("utf-8", "replace"), right.encode())
