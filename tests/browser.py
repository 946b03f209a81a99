"""A page in headless Chromium: what there is to read, whether it can be read, and what it asks for."""

import html
import json
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
needs_chromium = pytest.mark.skipif(not CHROMIUM, reason="no Chromium here; Debian: apt-get install chromium")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--enable-logging=stderr"),
)
LOOK = """
const shown = [...document.querySelectorAll('body *')];
for (const details of document.querySelectorAll('details')) details.open = true;
const channels = (colour) => {
  const [r, g, b, a = 1] = colour.match(/[\\d.e-]+/g).map(Number);
  return colour.startsWith('color(') ? [r, g, b, a] : [r / 255, g / 255, b / 255, a];
};
const luminance = (c) => c.slice(0, 3).map(v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
  .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
const behind = (element) => {
  for (let e = element; e; e = e.parentElement) {
    const c = channels(getComputedStyle(e).backgroundColor);
    if (c[3] === 1) return c;
  }
};
const size = (text) => parseFloat(getComputedStyle(text).fontSize) * text.getScreenCTM().a;
const contrasts = [];
for (const e of shown) {
  const text = [...e.childNodes].filter(n => n.nodeType === 3).map(n => n.data.trim()).join('');
  const style = getComputedStyle(e), fore = channels(e.closest('svg') ? style.fill : style.color);
  if (!text || fore[3] === 0 || !e.checkVisibility()) continue;
  const [low, high] = [luminance(fore), luminance(behind(e))].sort((a, b) => a - b);
  contrasts.push([(high + .05) / (low + .05), text]);
}
const ids = shown.map(e => e.id).filter(Boolean);
const aims = shown.map(e => e.getAttribute('href') || e.getAttribute('xlink:href') || '')
  .filter(h => h.startsWith('#'));
const seen = {
  width: innerWidth,
  overflow: document.documentElement.scrollWidth - innerWidth,
  requests: performance.getEntriesByType('resource').map(r => r.name).filter(n => !n.startsWith('data:')),
  errors,
  images: [...document.images].map(i => [i.naturalWidth, i.alt]),
  charts: document.querySelectorAll('svg').length,
  smallest: Math.min(...[...document.querySelectorAll('svg text')].map(size)),
  twice: ids.filter((id, i) => ids.indexOf(id) !== i),
  nowhere: aims.filter(h => !ids.includes(h.slice(1))),
  scripts: document.scripts.length - 2,
  background: getComputedStyle(document.body).backgroundColor,
  contrast: contrasts.sort((a, b) => a[0] - b[0])[0],
  text: document.body.innerText,
};
parent.postMessage(JSON.stringify(seen), '*');
"""
FRAME = """<!doctype html><style>body { margin: 0 } iframe { border: 0 }</style><output></output>
<script>addEventListener('message', e => { document.querySelector('output').textContent = e.data; });</script>
<iframe src="page.html" width="WIDTH" height="900"></iframe>"""  # a window is never narrower than 500 px
LISTEN = """
const errors = [];
addEventListener('error', e => errors.push(String(e.message || e.target.outerHTML)), true);
addEventListener('securitypolicyviolation', e => errors.push(e.blockedURI));
"""


@dataclass(frozen=True)
class Seen:
    """What the browser says of the page.

    width: of the window, px; overflow: px that stick out to the right; requests: what was asked for, but data;
    smallest: of a chart's text, px; twice: ids that are not unique; nowhere: addresses in the page that lead nowhere;
    contrast: the least of a text, and the text; text: all that is read, in order.
    """

    width: int
    overflow: int
    requests: list[str]
    errors: list[str]
    images: list[tuple[int, str]]
    charts: int
    smallest: float
    twice: list[str]
    nowhere: list[str]
    scripts: int
    background: str
    contrast: tuple[float, str]
    text: str


def look(page: str, scratch: Path, width: int = 1440, dark: bool = False) -> Seen:
    """The page, laid out at this width. Its policy is kept but for our own scripts."""
    policy = "default-src 'none'; "
    assert page.count(policy) == 1
    watched = page.replace(policy, f"{policy}script-src 'unsafe-inline'; ")
    watched = watched.replace("<head>", f"<head><script>{LISTEN}</script>", 1)
    watched = watched.replace("</body>", f"<script>addEventListener('load', () => {{{LOOK}}})</script></body>", 1)
    (scratch / "page.html").write_text(watched, encoding="utf-8")
    frame = scratch / "frame.html"
    frame.write_text(FRAME.replace("WIDTH", str(width)), encoding="utf-8")
    assert CHROMIUM
    done = subprocess.run(
        [
            *(CHROMIUM, *FLAGS, f"--user-data-dir={scratch / 'profile'}", f"--window-size={width + 40},1000"),
            *(f"--blink-settings=preferredColorScheme={0 if dark else 1}", "--virtual-time-budget=10000"),
            *("--dump-dom", frame.as_uri()),
        ],
        capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    found = re.search(r"<output>(.*?)</output>", done.stdout, re.DOTALL)
    assert found, done.stderr[-2000:]
    seen: dict[str, Any] = json.loads(html.unescape(found[1]))
    seen["errors"] += [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return Seen(**seen)


def check(seen: Seen, width: int, dark: bool) -> None:
    """What holds of every page of ours: nothing asked for or broken, nothing sticks out, all can be read."""
    assert (seen.width, seen.overflow, seen.requests, seen.errors, seen.scripts) == (width, 0, [], [], 0)
    assert all(pixels > 0 and alt for pixels, alt in seen.images)
    assert (seen.twice, seen.nowhere) == ([], [])
    assert seen.contrast[0] >= 4.5, seen.contrast
    assert seen.smallest > 10
    assert (seen.background == "rgb(255, 255, 255)") is not dark
