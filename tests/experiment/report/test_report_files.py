"""The report: one page that opens anywhere, whatever the verdict."""

from __future__ import annotations

import html
import itertools
import json
import re
import shutil
import xml.etree.ElementTree as ET
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
import rich.markup

from mars_optim.experiment.analysis import analyse
from mars_optim.experiment.report import LANGS, Lang, Messages, summary, write_report
from mars_optim.experiment.report.sections.headline import STATISTICS
from tests.support.written_pilot import EXTRAS, with_control_named, write_pilot

WIN, LOSS, UNDECIDED = dict(speedup=1.3), dict(speedup=0.8), dict(speedup=1.06, spread=0.2)
TITLES = {"go": "Go", "no-go": "No-go", "not-enough-runs": "Not enough runs to tell"}


VOID = {"meta", "br", "hr", "input", "img", "link"}
INLINE = {"button", "code", "b"}


class Page(HTMLParser):
    """Tags that were opened, mistakes in their nesting, and the text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.mistakes: list[str] = []
        self.inside: list[tuple[str, str]] = []  # (parent, tag)
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.inside.append((self.open[-1] if self.open else "", tag))
        self.words.append("" if tag in INLINE else " ")
        self.handle_startendtag(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if len(dict(attrs)) < len(attrs):
            self.mistakes.append(f"<{tag}> has an attribute twice")

    def handle_endtag(self, tag: str) -> None:
        self.words.append("" if tag in INLINE else " ")
        if not self.open or self.open.pop() != tag:
            self.mistakes.append(f"</{tag}> at {self.getpos()}")

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join("".join(self.words).split())


def report(out: Path) -> Page:
    write_report(analyse(out), out)
    return Page((out / "report.html").read_text(encoding="utf-8"))


@pytest.mark.slow_but_one
@pytest.mark.parametrize(
    ("pilot", "decision"), [(WIN, "go"), (LOSS, "no-go"), (UNDECIDED, "not-enough-runs")]
)
def test_every_verdict_has_its_page(tmp_path: Path, pilot: dict[str, float], decision: str) -> None:
    out = tmp_path / "pilot"
    write_pilot(out, **pilot)
    page = report(out)
    verdict = json.loads((out / "verdict.json").read_text())
    assert verdict["verdict"] == decision
    assert TITLES[decision] in page.text
    assert verdict["sentence"].split(": ", 1)[1] in page.text
    assert verdict["sentence"] in (out / "report.md").read_text()
    assert verdict["sentence"] in summary(analyse(out))


def test_the_page_is_self_contained_and_has_no_script(tmp_path: Path) -> None:
    write_pilot(tmp_path / "pilot", **WIN)
    page = report(tmp_path / "pilot")
    tags = {tag for tag, _ in page.tags}
    assert not tags & {"script", "link", "img", "iframe", "object"}
    for tag, attributes in page.tags:
        for name in ("src", "href", "xlink:href"):
            address = attributes.get(name) or "#"
            saved = tag == "a" and "download" in attributes and address.startswith("data:text/csv")
            read_on = tag == "a" and address == STATISTICS  # by a click alone
            assert address.startswith("#") or saved or read_on
    source = (tmp_path / "pilot" / "report.html").read_text()
    assert "@import" not in source
    assert not re.search(r"url\((?!#)", source)


def test_ids_are_unique_and_references_lead_somewhere(tmp_path: Path) -> None:
    write_pilot(tmp_path / "pilot", **WIN)
    page = report(tmp_path / "pilot")
    ids = [a["id"] for _, a in page.tags if "id" in a]
    assert len(ids) == len(set(ids))
    used = {a["xlink:href"] for _, a in page.tags if "xlink:href" in a}
    assert used
    assert used <= {f"#{i}" for i in ids}


def test_figures_speak_to_those_who_cannot_see_them(tmp_path: Path) -> None:
    write_pilot(tmp_path / "pilot", **WIN)
    page = report(tmp_path / "pilot")
    drawings = [a for tag, a in page.tags if tag == "svg"]
    figures = [a for a in drawings if a.get("role") == "img"]
    assert len(figures) == 5
    assert all(a["aria-label"] for a in figures)
    assert all(a["aria-hidden"] == "true" for a in drawings if a not in figures)
    tables = {tag for tag, _ in page.tags} & {"figure", "figcaption", "details", "caption"}
    assert len(tables) == 4  # each figure has its numbers beside it
    assert any("mars-adamw: 2" in str(a["aria-label"]) for a in figures)  # 23 % and so


@pytest.mark.slow
def test_the_same_runs_give_the_same_bytes(tmp_path: Path) -> None:
    write_pilot(tmp_path / "pilot", **WIN)
    report(tmp_path / "pilot")
    files = ["report.html", "report.md", "verdict.json", "figures/curves.svg"]
    first = [(tmp_path / "pilot" / f).read_bytes() for f in files]
    report(tmp_path / "pilot")
    assert [(tmp_path / "pilot" / f).read_bytes() for f in files] == first


@pytest.mark.slow
@pytest.mark.parametrize("lang", LANGS)
def test_the_page_is_well_formed_and_its_parts_are_named(tmp_path: Path, lang: Lang) -> None:
    out = tmp_path / "pilot"
    write_pilot(out, **WIN)
    source = write_report(analyse(out), out, Messages(lang))[0].read_text(encoding="utf-8")
    page = Page(source)
    assert source.startswith("<!doctype html>")
    assert page.mistakes == []
    assert page.open == []
    tags = [tag for tag, _ in page.tags]
    assert [tags.count(t) for t in ("html", "head", "body", "header", "main", "footer", "h1")] == [
        1
    ] * 7
    assert dict(page.tags)["html"]["lang"] == lang
    levels = [int(tag[1]) for tag in tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
    assert all("aria-label" in a or "aria-labelledby" in a for t, a in page.tags if t == "section")
    assert tags.count("caption") == tags.count("table") == 10
    assert all(a.get("scope") in ("row", "col") for t, a in page.tags if t == "th")
    ids = {a["id"] for _, a in page.tags if "id" in a}
    assert {a["aria-labelledby"] for _, a in page.tags if "aria-labelledby" in a} <= ids
    parents = {child: parent for parent, child in page.inside if child in ("li", "dt", "tr")}
    assert parents == {"li": "ul", "dt": "div", "tr": "tbody"}


HOSTILE = "<script>a()</script>&\"'`|*_[x](y:z)$x$\\"  # as long as a name may be


@pytest.mark.slow
def test_hostile_names_are_shown_and_not_run(tmp_path: Path) -> None:
    out = tmp_path / "pilot"
    text = json.dumps(HOSTILE)
    write_pilot(
        out, speedup=1.2, task__corpus=text, cost__currency=text, cost__price_per_hour="2.5"
    )
    (out / "amendments.jsonl").write_text(json.dumps({"date": "x", "changes": [HOSTILE]}) + "\n")
    analysis = with_control_named(analyse(out), HOSTILE)
    environment = analysis.environment | {"device": HOSTILE + "\x1b[31m\u202e"}
    hostile = replace(analysis, environment=environment)
    for lang in LANGS:
        html, markdown, verdict = write_report(hostile, out, Messages(lang))
        page = Page(html.read_text(encoding="utf-8"))
        assert page.mistakes == []
        assert "script" not in {tag for tag, _ in page.tags}
        assert not any(name.startswith("on") for _, a in page.tags for name in a)
        assert page.text.count(HOSTILE) >= 8
        lines = markdown.read_text(encoding="utf-8")
        prose = re.sub("^```.*?^```$", "", lines, flags=re.S | re.M)
        assert "<script" not in prose.replace("\\<", "")
        assert not re.search(r"(?<!\\)\]\(y:z", prose)
        assert "\x1b" not in page.text + lines
        assert HOSTILE in json.loads(verdict.read_text())["arms"]
        for svg in (out / "figures").glob("*.svg"):
            names = {e.tag.split("}")[1] for e in ET.parse(svg).iter()}
            assert "script" not in names
        assert HOSTILE in "".join(ET.parse(out / "figures" / "saving.svg").getroot().itertext())
        rich.markup.render(summary(hostile, Messages(lang)))


def test_numbers_in_page_markdown_and_json_agree(tmp_path: Path) -> None:
    out = tmp_path / "pilot"
    write_pilot(out, **WIN)
    page, markdown = report(out), (out / "report.md").read_text()
    verdict = json.loads((out / "verdict.json").read_text())
    for arm in verdict["arms"].values():
        assert f"{arm['mean_loss']:.4f}" in page.text
        assert f"{arm['mean_loss']:.4f}" in markdown
        for loss in arm["final_losses"].values():
            assert f"{loss:.4f}" in page.text
            assert f"{loss:.4f}" in markdown
    saved = verdict["tokens_saved"]
    assert saved["mean"] == pytest.approx(1 - 1 / 1.3, abs=0.02)
    assert f"{100 * saved['mean']:.0f} %" in page.text


@pytest.mark.slow
def test_money_is_shown_at_a_price_and_left_out_without(tmp_path: Path) -> None:
    write_pilot(tmp_path / "free", **WIN)
    free = report(tmp_path / "free").text
    assert "no price given: set cost.price_per_hour" in free
    assert "Money saved of" not in free
    write_pilot(
        tmp_path / "priced", speedup=1.3, cost__price_per_hour="2.5", cost__currency="'EUR'"
    )
    text = report(tmp_path / "priced").text
    assert "Money saved of 2,500 EUR planned" in text
    hours = json.loads((tmp_path / "priced" / "verdict.json").read_text())["hours_saved"]["mean"]
    assert f"{2500 * hours:,.0f} EUR" in text


def test_verdict_json_is_strict_json_even_with_one_pair(tmp_path: Path) -> None:
    out = tmp_path / "pilot"
    write_pilot(out, **WIN)
    for seed in (2, 3, 4, 5):
        for folder in (out / "runs").glob(f"*-seed{seed}-*"):
            shutil.rmtree(folder)
    page = report(out)
    json.loads((out / "verdict.json").read_text(), parse_constant=pytest.fail)
    assert "missing" in page.text


def test_a_diverged_run_is_told(tmp_path: Path) -> None:
    out = tmp_path / "pilot"
    write_pilot(out, **WIN)
    manifest = next((out / "runs").glob("mars-adamw-*-seed3-*")) / "manifest.json"
    data = json.loads(manifest.read_text())
    data["outcome"] |= {"status": "diverged", "final_loss": None, "reason": "loss inf"}
    manifest.write_text(json.dumps(data))
    page = report(out)
    assert "No-go" in page.text
    assert "diverged in 1 of 5 runs" in page.text


def test_figures_beside_the_markdown_are_whole_files(tmp_path: Path) -> None:
    out = tmp_path / "pilot"
    write_pilot(out, **WIN)
    report(out)
    named = re.findall(r"\]\((figures/\w+\.svg)\)", (out / "report.md").read_text())
    assert len(named) == 5
    for name in named:
        assert ET.parse(out / name).getroot().tag.endswith("svg")


@pytest.mark.slow
def test_tables_of_the_markdown_have_equal_columns(tmp_path: Path) -> None:
    out = tmp_path / "pilot"
    write_pilot(out, **WIN)
    report(out)
    tables = re.findall(r"(?:^\|.*\n)+", (out / "report.md").read_text(), flags=re.M)
    assert len(tables) == 5
    for table in tables:
        assert len({line.count("|") for line in table.splitlines()}) == 1
        assert len(table.splitlines()) >= 3


@pytest.mark.slow
def test_the_next_stage_is_in_all_three_files(tmp_path: Path) -> None:
    out = tmp_path / "pilot"
    write_pilot(out, **WIN)
    *pages, verdict = write_report(analyse(out), out)
    data = json.loads(verdict.read_text())
    assert data["next_step"]["key"] == "canary"
    assert [stage["status"] for stage in data["rollout"]] == ["done", "next", "later"]
    for path in pages:
        text = html.unescape(path.read_text(encoding="utf-8")).replace("\\", "")
        text = re.sub(r"</?(button|code)\b[^>]*>", "", text).replace("`", "")
        for stage in data["rollout"]:
            assert stage["title"] in text
            for condition in (*stage["entry"], *stage["exit"], *stage["rollback"]):
                assert condition["text"] in text


@pytest.mark.slow
@pytest.mark.slow_but_one
@pytest.mark.parametrize("lang", LANGS)
def test_what_a_pilot_adds_finds_its_place_in_the_page(tmp_path: Path, lang: Lang) -> None:
    out = tmp_path / "pilot"
    write_pilot(out, speedup=1.3, **EXTRAS)
    analysis, words = analyse(out), Messages(lang)
    html, markdown, _ = write_report(analysis, out, words)
    page = Page(html.read_text(encoding="utf-8"))
    assert page.mistakes == []
    ids = [a["id"] for tag, a in page.tags if tag == "section" and "id" in a]
    here = ["answer", "cost", "cause", "sizes", "evidence", "rollout", "repeat", "limits"]
    assert ids == [*here, "glossary"]
    assert len([a for tag, a in page.tags if a.get("role") == "img"]) == 6
    for part in analysis.parts:
        assert words(f"part.{part.cause}") in page.text
    assert words("contrast.pair", arm="nadamw", against="adamw") in page.text
    assert "\u03b3 0.05" in page.text
    assert words("cost.break-even") in page.text
    assert "2 T" in page.text
    assert words("table.sizes", candidate="mars-adamw") in page.text
    for svg in ("sizes", "sensitivity"):
        assert f"(figures/{svg}{words.suffix}.svg)" in markdown.read_text(encoding="utf-8")
        assert ET.parse(out / "figures" / f"{svg}{words.suffix}.svg")
