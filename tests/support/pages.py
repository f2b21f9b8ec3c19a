"""Report pages in a real browser: one start of headless Chromium looks at many of them."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import pytest

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
OPTIONS = (
    "--headless --no-sandbox --disable-gpu --no-first-run --disable-sync --disable-quic "
    "--disable-background-networking --disable-component-update --allow-file-access-from-files "
    "--virtual-time-budget=200000"
).split()

HARNESS = """<!doctype html><meta charset="utf-8"><body><script>
%(look)s
const found = {}, views = %(views)s;
async function all() {
  for (const [name, [src, width, height]] of Object.entries(views)) {
    const frame = document.createElement("iframe");
    frame.width = width; frame.height = height; frame.src = src;
    await new Promise(done => { frame.onload = done; document.body.append(frame); });
    found[name] = await look(frame.contentDocument, frame.contentWindow);
    frame.remove();
  }
  document.body.textContent = btoa(unescape(encodeURIComponent(JSON.stringify(found))));
}
all().catch(error => { document.body.textContent = "failed: " + error.stack; });
</script>"""

LOOK = r"""
function light(rgb) {
  const [r, g, b] = rgb.map(v => v / 255)
    .map(v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
  return .2126 * r + .7152 * g + .0722 * b;
}
function numbers(colour) {
  const parts = colour.match(/[\d.]+/g).map(Number);
  return [parts.slice(0, 3), parts.length > 3 ? parts[3] : 1];
}
function behind(element, win) {
  for (let e = element; e; e = e.parentElement) {
    const [rgb, alpha] = numbers(win.getComputedStyle(e).backgroundColor);
    if (alpha > .99) return rgb;
  }
  return [255, 255, 255];
}
function contrasts(doc, win) {
  const found = {};
  const walk = doc.createTreeWalker(doc.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const text = walk.currentNode.textContent.trim(), e = walk.currentNode.parentElement;
    if (!text || e.closest("style, details:not([open]) > :not(summary)")) continue;
    const style = win.getComputedStyle(e);
    const front = light(numbers(e.closest("svg") ? style.fill : style.color)[0]);
    const back = light(behind(e, win));
    const ratio = (Math.max(front, back) + .05) / (Math.min(front, back) + .05);
    const key = e.tagName + "." + (e.className.baseVal ?? e.className);
    if (!(key in found) || found[key][0] > ratio) found[key] = [ratio, text.slice(0, 40)];
  }
  return found;
}
function pixels(doc, font, text) {
  const canvas = doc.createElement("canvas");
  const pen = canvas.getContext("2d", {willReadFrequently: true});
  canvas.width = canvas.height = 40;
  pen.font = "32px " + font;
  pen.fillText(text, 2, 32);
  return pen.getImageData(0, 0, 40, 40).data.join();
}
function glyphs(doc, win) {
  // nobody has a glyph for U+0378, so that all boxes of missing ones look like it
  const fonts = [...doc.querySelectorAll("h1, svg text")]
    .map(e => win.getComputedStyle(e).fontFamily);
  return [...new Set(fonts)].map(font => {
    const [box, ...found] = ["\u0378", "\u8a9e", "\u5b66", "\u30c8"]
      .map(c => pixels(doc, font, c));
    return new Set(found).size === 3 && !found.includes(box);
  });
}
const moment = () => new Promise(done => setTimeout(done, 1000));
async function tips(doc, win) {
  const open = () => [...doc.querySelectorAll(".tip")]
    .filter(e => win.getComputedStyle(e).display !== "none")
    .map(e => [e.id, ...["left", "right", "top"].map(side => e.getBoundingClientRect()[side])]);
  const term = doc.querySelector(".term");
  if (!term) return null;
  doc.activeElement.blur();
  await moment();
  const before = open();
  term.focus({focusVisible: true});
  await moment();
  const focused = open();
  term.blur();
  await moment();
  const blurred = open();
  term.click();
  const clicked = open();
  return {of: term.getAttribute("aria-describedby"), before, focused, blurred, clicked};
}
async function look(doc, win) {
  const root = doc.documentElement;
  const bottom = selector => doc.querySelector(selector).getBoundingClientRect().bottom;
  const focusable = [...doc.querySelectorAll("a[href], summary, button, [tabindex]")]
    .filter(e => e.checkVisibility());
  const outlines = focusable.map(e => {
    e.focus({focusVisible: true});
    const outline = win.getComputedStyle(e);
    return outline.outlineStyle !== "none" && parseFloat(outline.outlineWidth) >= 2;
  });
  focusable[0].focus({focusVisible: true});
  const skip = focusable[0].getBoundingClientRect();
  return {
    tips: await tips(doc, win),
    overflow: root.scrollWidth - root.clientWidth,
    width: root.clientWidth,
    tiles: [...doc.querySelectorAll(".tiles > div")].map(e => e.getBoundingClientRect().bottom),
    title: bottom(".verdict .title"),
    lead: bottom(".verdict .lead"),
    contrasts: contrasts(doc, win),
    glyphs: glyphs(doc, win),
    dark: win.matchMedia("(prefers-color-scheme: dark)").matches,
    focusable: focusable.map(e => e.tagName + "." + e.className),
    tabindexes: focusable.map(e => e.tabIndex),
    unnamed: focusable.filter(e => e.matches("div") && !e.getAttribute("aria-label")).length,
    outlines,
    skipShown: skip.left >= 0 && skip.top >= 0,
    skipTarget: !!doc.querySelector(focusable[0].getAttribute("href")),
    cut: [...doc.querySelectorAll("th, td, dd, dt, p, li, figcaption")]
      .filter(e => !e.closest(".scroll") && e.scrollWidth > e.clientWidth + 1 && e.clientWidth)
      .map(e => e.textContent.slice(0, 60)),
    svgs: [...doc.querySelectorAll(".drawing svg")].map(e => {
      const box = e.getBoundingClientRect();
      return [...e.querySelectorAll("text")].filter(t => {
        const b = t.getBoundingClientRect();
        return b.left < box.left - 1 || b.right > box.right + 1;
      }).map(t => t.textContent);
    }).flat(),
  };
}
"""


def lacking(what: str) -> NoReturn:
    """Skip the test, or fail it where CI has installed ``what`` (MARS_TEST_BROWSER=1)."""
    if os.environ.get("MARS_TEST_BROWSER") == "1":
        pytest.fail(f"no {what} on this machine, and MARS_TEST_BROWSER=1 asks for it")
    pytest.skip(f"no {what} on this machine")


def fonts_for(lang: str) -> str:
    """The fonts of this machine that have a language's glyphs, as fontconfig lists them."""
    if not shutil.which("fc-list"):
        return ""
    done = subprocess.run(["fc-list", f":lang={lang}"], capture_output=True, text=True, check=False)
    return done.stdout


def look_at(
    views: Mapping[str, tuple[Path, int, int]], folder: Path, *, dark: bool = False
) -> dict[str, Any]:
    """Open each page at a width and a height, and measure it.

    Args:
        views: name -> (file, width, height) in CSS pixels.
        folder: for the browser's own files.
        dark: whether the system asks for dark pages.
    """
    folder.mkdir(exist_ok=True)
    sources = {name: (path.as_uri(), w, h) for name, (path, w, h) in views.items()}
    harness = folder / "harness.html"
    harness.write_text(HARNESS % dict(look=LOOK, views=json.dumps(sources)), encoding="utf-8")
    command = [
        str(CHROMIUM),
        *OPTIONS,
        f"--blink-settings=preferredColorScheme={0 if dark else 1}",
        f"--user-data-dir={folder / 'profile'}",
        "--dump-dom",
        harness.as_uri(),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=True)
    body = re.search(r"<body>([A-Za-z0-9+/=]+)</body>", done.stdout)
    assert body, done.stdout[-2000:]
    return json.loads(base64.b64decode(body[1]))  # type: ignore[no-any-return]
