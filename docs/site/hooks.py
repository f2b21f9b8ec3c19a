"""Changes that mkdocs makes to a page: included files, outward links, commands, formulas."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert
from markdown import Markdown
from markdown.extensions import Extension
from markdown.inlinepatterns import InlineProcessor

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
GITHUB = "https://github.com/mars-optim/mars-optim"
INCLUDE = re.compile(r"^<!-- include (\S+) -->$", re.MULTILINE)
COMMANDS = "<!-- commands -->"
LINK = re.compile(r"(?<=\]\()(?![a-z]+:|#)([^)#\s]+)(#[^)\s]*)?(?=\))")
INLINE = r"(?<!`)\$`([^`\n]+)`\$(?!`)"
LANGUAGES = {".py": "python", ".toml": "toml"}


def on_config(config: Any, **_: Any) -> Any:
    """The settings, with formulas among the fenced blocks: GitHub shows ```math as well."""
    fences = config["mdx_configs"].setdefault("pymdownx.superfences", {})
    fences["custom_fences"] = [{"name": "math", "class": "formula", "format": formula}]
    config["markdown_extensions"].append(InlineFormulas())
    return config


def formula(source: str, _language: str, css_class: str, *_: Any, **__: Any) -> str:
    """A formula in LaTeX as MathML, which browsers draw without a script."""
    return f'<div class="{css_class}">{convert(source, display="block")}</div>'


class InlineFormulas(Extension):
    """Formulas within a sentence, written $`m_t`$ as GitHub and GitLab have them, as MathML."""

    def extendMarkdown(self, md: Markdown) -> None:  # noqa: N802
        """Look for them before code, which backticks mark too."""
        md.inlinePatterns.register(_InlineFormula(INLINE, md), "formula", 195)


class _InlineFormula(InlineProcessor):
    def handleMatch(self, m: re.Match[str], data: str) -> tuple[str, int, int]:  # noqa: N802
        drawn = self.md.htmlStash.store(convert(m[1], display="inline"))
        return drawn, m.start(0), m.end(0)


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """The page as it is rendered. ``page.file.src_uri`` is its path below docs/."""
    here = (DOCS / page.file.src_uri).parent
    if page.file.src_uri.endswith("report.md"):
        page.meta["search"] = {"exclude": True}  # each holds a whole plan, whatever is asked for
    text = INCLUDE.sub(lambda found: included(ROOT / found[1], here), markdown)
    if COMMANDS in text:
        text = text.replace(COMMANDS, commands())
    return LINK.sub(lambda found: link(found[1], here) + (found[2] or ""), text)


def included(path: Path, here: Path) -> str:
    """A file of the repository: code in a fence, or Markdown with links as seen from ``here``."""
    text = path.read_text(encoding="utf-8").rstrip()
    if path.suffix != ".md":
        return f"```{LANGUAGES.get(path.suffix, 'text')}\n{text}\n```"

    def moved(found: re.Match[str]) -> str:
        target = (path.parent / found[1]).resolve()
        return Path(os.path.relpath(target, here)).as_posix() + (found[2] or "")

    return LINK.sub(moved, text)


def link(target: str, here: Path) -> str:
    """A link that stays in docs/ as it is; one that leaves it, to the file on GitHub."""
    path = (here / target).resolve()
    if path.is_relative_to(DOCS) and path.is_file() and path.suffix not in {".py", ".xz"}:
        return target
    if not path.exists() or not path.is_relative_to(ROOT):
        return target  # mkdocs names what is missing
    kind = "tree" if path.is_dir() else "blob"
    return f"{GITHUB}/{kind}/main/{path.relative_to(ROOT).as_posix()}"


def commands() -> str:
    """Every command of ``mars`` with its options, from the program itself."""
    from mars_optim.cli.app import app

    text: str = app.generate_docs(output_format="markdown", heading_level=2)
    return text[text.index("**First steps**") :]
