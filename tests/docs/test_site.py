"""The site's navigation names every page, what the pages include is there, and it builds."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from markdown import markdown

import mars_optim
from docs.figures import architecture, evidence, terminal
from docs.site import hooks
from tests.support.paths import ROOT

DOCS = ROOT / "docs"
CONFIG = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
OPTIMIZERS = {"mars", "mars-adamw", "mars-lion", "mars-shampoo", "mars-m", "variance-reduce"}


def pages(nav: Any) -> Iterator[str]:
    """Every page that the navigation names."""
    if isinstance(nav, str):
        yield nav
    else:
        for entry in nav.values() if isinstance(nav, dict) else nav:
            yield from pages(entry)


def test_the_navigation_names_every_page_once():
    named = list(pages(CONFIG["nav"]))
    written = {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")}
    assert sorted(named) == sorted(page for page in written if not page.endswith(".ja.md"))


def test_every_optimizer_has_a_page():
    assert {path.stem for path in (DOCS / "optimizers").glob("*.md")} == OPTIMIZERS


def test_every_public_name_is_in_the_reference():
    text = "".join(path.read_text(encoding="utf-8") for path in (DOCS / "reference").glob("*.md"))
    shown = set(re.findall(r"^::: mars_optim\.(\w+)$", text, re.MULTILINE))
    assert shown >= {name for name in mars_optim.__all__ if not name.startswith("_")}


def test_every_script_of_the_examples_is_in_a_tutorial():
    text = "".join(path.read_text(encoding="utf-8") for path in (DOCS / "tutorials").glob("*.md"))
    included = {name for name in hooks.INCLUDE.findall(text) if name.endswith(".py")}
    there = {path.relative_to(ROOT).as_posix() for path in (ROOT / "examples").rglob("*.py")}
    assert included == there


def test_a_link_out_of_the_docs_leads_to_the_repository():
    assert hooks.link("../recipes", DOCS).endswith("/tree/main/recipes")
    assert hooks.link("../CONTRIBUTING.md", DOCS).endswith("/blob/main/CONTRIBUTING.md")
    assert hooks.link("pilot.md", DOCS) == "pilot.md"


def test_an_included_page_keeps_its_links():
    page = hooks.included(ROOT / "CONTRIBUTING.md", DOCS)
    assert "](pilot-options.md#any-optimizer-as-an-arm)" in page
    assert "](docs/" not in page


def fenced(path: Path) -> list[str]:
    """The formulas of a page."""
    return re.findall(r"^```math\n(.*?)\n```$", path.read_text("utf-8"), re.MULTILINE | re.DOTALL)


LEFT_OVER = re.compile(r"\\|<mi>&amp;</mi>|>begin<")


def test_every_formula_becomes_mathml_without_leftovers():
    found = {path.name: fenced(path) for path in DOCS.rglob("*.md")}
    assert all(found[f"{name}.md"] for name in [*OPTIMIZERS, "theory", "statistics"])
    for source in (source for sources in found.values() for source in sources):
        drawn = hooks.formula(source, "math", "formula")
        assert "<math" in drawn
        assert not LEFT_OVER.search(drawn), source


def test_formulas_within_sentences_become_mathml():
    for name in ("theory", "statistics"):
        text = (DOCS / f"{name}.md").read_text("utf-8")
        prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
        sources = re.findall(hooks.INLINE, prose)
        page = markdown(prose, extensions=["tables", "sane_lists", hooks.InlineFormulas()])
        assert len(sources) >= 10
        assert page.count('display="inline"') == len(sources)
        assert "$" not in re.sub(r"<code>.*?</code>", "", page, flags=re.DOTALL)
        assert not [s for s in sources if LEFT_OVER.search(hooks.convert(s))]


def test_no_page_loses_an_inner_product_to_html():
    for path in DOCS.glob("*.md"):
        prose = re.sub(r"```.*?```|`[^`]*`", "", path.read_text("utf-8"), flags=re.DOTALL)
        assert not re.search(r"<[a-zA-Z]\w*_[^<>\n]*>", prose), path


def test_code_that_shows_a_formulas_source_stays_code():
    page = markdown("Write ``$`m_t`$``.", extensions=[hooks.InlineFormulas()])
    assert page == "<p>Write <code>$`m_t`$</code>.</p>"


def test_the_architecture_picture_is_drawn_from_the_contracts():
    drawn = architecture.picture(architecture.layers())
    assert architecture.PICTURE.read_text(encoding="utf-8") == drawn


def test_the_evidence_picture_reads_numbers_of_its_pages():
    found = evidence.savings()
    text = (DOCS / "public-runs.md").read_text(encoding="utf-8")
    assert len(found) == len(evidence.ARMS) * len(evidence.STUDIES) + len(evidence.TABLE_NAMES)
    mars = found["mars-adamw", "public"]
    assert f"{100 * mars.mean:.1f}% ({100 * mars.low:.1f}% to {100 * mars.high:.1f}%)" in text
    auto = found["nadamw-auto", "gpt-fit"]
    assert [round(100 * x) for x in auto[:3]] == [15, 13, 16]  # as the README says


def test_the_terminal_shows_the_examples_own_verdict():
    log = terminal.LOG.read_text(encoding="utf-8")
    report = (DOCS / "example" / "report.md").read_text(encoding="utf-8")
    (verdict,) = [line for line in log.splitlines() if line.startswith("No-go: ")]
    assert verdict in report.splitlines()
    assert terminal.PICTURE.read_text(encoding="utf-8") == terminal.picture(log)


def test_the_quickstarts_dozen_lines_run(capsys: pytest.CaptureFixture[str]):
    text = (DOCS / "quickstart.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    assert len([line for line in code.splitlines() if line]) <= 12
    exec(compile(code, "docs/quickstart.md", "exec"), {})
    assert "by auto" in capsys.readouterr().out


@pytest.mark.slow
def test_the_site_builds_without_warnings_and_fetches_nothing(tmp_path: Path):
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    fetched = re.compile(
        r'<(?:script|img|iframe)[^>]+src="(?:https?:)?//|<link[^>]+stylesheet[^>]+//'
    )
    found = {p.name for p in tmp_path.rglob("*.html") if fetched.search(p.read_text("utf-8"))}
    assert found == set()
    for page in [*(f"optimizers/{name}" for name in OPTIMIZERS), "theory"]:
        shown = (tmp_path / f"{page}.html").read_text("utf-8")
        assert "<math" in shown
        assert not re.search(r"```math|\$\$|language-math", shown)
    found_by_search = json.loads((tmp_path / "search" / "search_index.json").read_text("utf-8"))
    places = {entry["location"].partition("#")[0] for entry in found_by_search["docs"]}
    assert "optimizers/mars-adamw.html" in places
    assert not [place for place in places if place.endswith("report.html")]
