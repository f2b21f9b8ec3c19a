"""Answers of the live page's server: to whom, with which headers, and which it never gives."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any
from wsgiref.util import setup_testing_defaults

import pytest

from mars_optim.cli import main
from mars_optim.experiment.live.access import Access, is_loopback
from mars_optim.experiment.live.app import App
from mars_optim.experiment.live.watcher import Watcher
from mars_optim.experiment.report import Messages
from tests.support.pretend_pilot import status, unfinished_run
from tests.support.written_pilot import write_pilot

LOCAL = Access.of("127.0.0.1", token=False)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pilot with a run under way; not to be written to."""
    out = tmp_path_factory.mktemp("answers") / "pilot"
    write_pilot(out, speedup=1.3)
    for folder in (out / "runs").glob("*-seed5-*"):
        shutil.rmtree(folder)
    run = unfinished_run(out, "mars-adamw", seed=5, steps=1000, rows=3)
    status(out, running={run: 333})
    return out


@pytest.fixture
def out(whole: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(whole, tmp_path / "pilot"))


class Reader:
    """Asks an application without a network, and so seldom that every answer is a new look."""

    def __init__(self, out: Path, access: Access = LOCAL) -> None:
        self.now = 0.0
        watcher = Watcher(out, Messages(), every=0.0, clock=lambda: self.now)
        self.app = App(watcher, access, 8000)
        self.status, self.headers = "", dict[str, str]()

    def get(self, path: str = "/", **environ: str) -> str:
        self.now += 1.0
        asked: dict[str, Any] = {}
        path, _, query = path.partition("?")
        setup_testing_defaults(asked)
        asked |= dict(PATH_INFO=path, QUERY_STRING=query, HTTP_HOST="127.0.0.1:8000") | environ

        def start(status: str, headers: list[tuple[str, str]]) -> None:
            self.status, self.headers = status[:3], dict(headers)

        return b"".join(self.app(asked, start)).decode()


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:8000", "[::1]:9", "LOCALHOST:80"])
def test_the_loopback_is_read_by_its_own_names(whole: Path, host: str) -> None:
    reader = Reader(whole)
    reader.get(HTTP_HOST=host)
    assert reader.status == "200"


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "[::1", "", "10.0.0.1"])
def test_another_name_for_the_loopback_is_refused(whole: Path, host: str) -> None:
    reader = Reader(whole)
    assert "asked for by another name" in reader.get(HTTP_HOST=host)
    assert reader.status == "403"


def test_beyond_the_loopback_nothing_is_read_without_token(whole: Path) -> None:
    access = Access.of("0.0.0.0", token=False)
    reader = Reader(whole, access)
    cookie = f"mars-watch-8000={access.token}"  # the token is not the cookie
    for asked in (
        dict(path="/"),
        dict(path="/state.json"),
        dict(path="/report.html"),
        dict(path="/comparison.svg"),
        dict(path="/live.js"),
        dict(path="/?token="),
        dict(path=f"/?token={access.token[:-1]}"),
        dict(path="/?token=\u3042"),
        dict(path=f"/state.json?token={access.token}"),
        dict(HTTP_COOKIE=cookie),
        dict(HTTP_COOKIE="mars-watch-8000="),
        dict(HTTP_COOKIE="a b=\u3042; ;;"),
    ):
        assert "This page needs its token" in reader.get(**asked)
        assert reader.status == "403"


def test_the_token_is_exchanged_for_a_strict_cookie(whole: Path) -> None:
    access = Access.of("0.0.0.0", token=False)
    reader = Reader(whole, access)
    assert access.token not in reader.get(f"/?token={access.token}", HTTP_HOST="gpu7:8000")
    cookie, *rules = reader.headers["Set-Cookie"].split("; ")
    assert {"HttpOnly", "SameSite=Strict"} <= set(rules)
    assert access.token not in cookie
    assert "mars-adamw" in reader.get(HTTP_HOST="gpu7:8000", HTTP_COOKIE=f"x=1; {cookie}")
    assert reader.status == "200"
    assert "needs its token" in Reader(whole, Access.of("0.0.0.0", token=False)).get(
        HTTP_COOKIE=cookie
    )


def test_two_servers_never_have_one_token() -> None:
    made = [Access.of("0.0.0.0", token=False) for _ in range(9)]
    assert len({x for access in made for x in (access.token, access.cookie)}) == 18
    assert min(len(access.token) for access in made) >= 43
    assert (Access.of("localhost", token=True).token, LOCAL.token) != ("", "")
    assert [is_loopback(host) for host in ("::1", "127.9.9.9", "0.0.0.0", "::", "x")] == [
        *(True, True, False, False, False)
    ]


@pytest.mark.slow_but_one
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "get"])
def test_the_page_can_only_be_read(whole: Path, method: str) -> None:
    reader = Reader(whole)
    assert reader.get(REQUEST_METHOD=method) == "This page can only be read.\n"
    assert (reader.status, reader.headers["Allow"]) == ("405", "GET, HEAD")
    assert reader.get(REQUEST_METHOD="HEAD") == ""
    assert reader.status == "200"


@pytest.mark.parametrize(
    "path", ["/plan.toml", "/../plan.toml", "/runs/plan.toml", "//etc/passwd", "/report.html", "/x"]
)
def test_no_file_is_served_by_its_path(whole: Path, path: str) -> None:
    reader = Reader(whole)
    assert reader.get(path) == "There is no such page here.\n"
    assert reader.status == "404"


def test_a_report_is_served_but_no_link_in_its_place(out: Path) -> None:
    (out / "secret").write_text("secret")
    (out / "report.html").symlink_to(out / "secret")
    reader = Reader(out)
    reader.get("/report.html")
    assert reader.status == "404"
    (out / "report.html").unlink()
    (out / "report.html").write_text("<p>the report</p>")
    assert reader.get("/report.html") == "<p>the report</p>"
    assert "script-src" not in reader.headers["Content-Security-Policy"]


@pytest.mark.slow_but_one(among=3)
@pytest.mark.parametrize(
    "path", ["/", "/state.json", "/live.js", "/live.css", "/icon.svg", "/tuning.svg", "/x"]
)
def test_every_answer_allows_nothing_from_elsewhere(whole: Path, path: str) -> None:
    reader = Reader(whole)
    body = reader.get(path)
    assert reader.headers["Content-Security-Policy"].startswith("default-src 'none'; ")
    assert reader.headers["X-Content-Type-Options"] == "nosniff"
    assert reader.headers["Cache-Control"] == "no-store"
    assert reader.headers["Referrer-Policy"] == "no-referrer"
    elsewhere = body.replace("http://www.w3.org/", "")  # names of SVG, not addresses
    assert "://" not in elsewhere
    if path == "/":
        assert "style=" not in body
        assert "<script>" not in body


def test_what_has_not_changed_is_not_sent_again(out: Path) -> None:
    reader = Reader(out)
    first = json.loads(reader.get("/state.json"))
    tag = reader.headers["ETag"]
    assert reader.get("/state.json", HTTP_IF_NONE_MATCH=tag) == ""
    assert reader.status == "304"
    run = next((out / "runs").glob("mars-adamw-*-seed5-*"))
    with (run / "rows.jsonl").open("a") as rows:
        rows.write('{"step": 700, "tokens": 358400, "seconds": 7.0, "loss": 2.1}\n{"step": 800, "l')
    second = json.loads(reader.get("/state.json", HTTP_IF_NONE_MATCH=tag))
    assert "70 %" in second["parts"]["runs"]
    changed = {k for k in first["parts"] if first["parts"][k] != second["parts"][k]}
    assert changed == {"progress", "figures", "runs"}


def test_looking_writes_nothing_and_takes_no_lock(out: Path) -> None:
    def listing() -> dict[str, tuple[int, int]]:
        stats = {path: path.stat() for path in out.rglob("*")}
        return {str(path): (found.st_mtime_ns, found.st_size) for path, found in stats.items()}

    before, reader = listing(), Reader(out)
    for path in ("/", "/state.json", "/comparison.svg", "/tuning.svg", "/report.html"):
        reader.get(path)
    assert listing() == before


BROKEN = {
    "status.json": ["", "{", "[]", '{"state": 3}', '{"state": "running", "running": 3}'],
    "probe.json": ['{"adamw": 3}', "{"],
    "plan.toml": ["[task\n", "\x00"],
    "spent.json": ['{"seconds": "x"}'],
    "runs/RUN/rows.jsonl": ['{"step": 1', "null\n", '{"step": "a", "loss": "b"}\n', "\x00"],
    "runs/RUN/manifest.json": ["", '{"format": 1}', "[]"],
    "runs/RUN/failures.jsonl": ['{"kind": "failed", "reason": 4}\n'],
}


@pytest.mark.slow_but_one(among=5)
@pytest.mark.parametrize(
    ("name", "text"), [(name, text) for name, texts in BROKEN.items() for text in texts]
)
def test_a_half_written_file_ends_no_page(out: Path, name: str, text: str) -> None:
    reader = Reader(out)
    run = next((out / "runs").glob("mars-adamw-*-seed5-*")).name
    (out / name.replace("RUN", run)).write_text(text)
    page = reader.get()
    assert reader.status == "200"
    assert "Does mars-adamw pay on this task" in page
    assert "Traceback" not in page


def test_a_folder_that_vanished_is_told_in_a_line(out: Path) -> None:
    reader = Reader(out)
    shutil.rmtree(out)
    page = reader.get()
    assert "The folder cannot be read at this moment" in page
    assert f"an older state. {out} holds no pilot (no plan.toml)" in page
    assert "mars-adamw" in page


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--serve"], "holds no pilot (no plan.toml)"),
        (["--port", "80"], "--host, --port, --token and --lang work only with --serve"),
        (["--serve", "--once"], "leave out --once or --serve"),
        (["--serve", "--port", "70000"], "--port 70000 must be from 1 to 65535"),
        (["--serve", "--every", "0"], "--every 0 must be from 0.1 to 3600 seconds"),
    ],
)
def test_a_mistake_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], said: str
) -> None:
    assert main(["watch", str(tmp_path), *options]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_an_address_of_another_machine_is_one_line(
    whole: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["watch", str(whole), "--serve", "--host", "192.0.2.1"]) == 2
    assert "--host 192.0.2.1 --port 0 cannot be opened" in capsys.readouterr().err


def test_without_waitress_the_way_out_is_named(
    whole: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "waitress.server", None)
    assert main(["watch", str(whole), "--serve"]) == 2
    assert "waitress is not installed: pip install 'mars-optim[serve]'" in capsys.readouterr().err


def test_a_missing_folder_is_named_before_a_missing_package(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "waitress.server", None)
    assert main(["watch", str(tmp_path / "absent"), "--serve"]) == 2
    error = capsys.readouterr().err
    assert "absent" in error
    assert "waitress" not in error
