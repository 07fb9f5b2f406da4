"""report.html in a browser: offline, on a phone and on paper."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from trainer.report.markup import show_code, write_page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or ""
pytestmark = pytest.mark.skipif(not CHROMIUM, reason="no chromium on this machine; apt-get install chromium brings one")

SECTIONS = {
    "Evaluation on test", "Metrics", "Confusion", "ROC, precision and recall", "Calibration", "By class",
    "Worst errors", "Likely label mistakes", "Decision", "Course of training", "Pictures as training sees them",
    "Dataset", "Environment", "Fingerprints", "To reproduce",
}  # fmt: skip
PROBE = """<script>addEventListener('load', () => {
  const all = selector => [...document.querySelectorAll(selector)];
  const seen = {
    width: innerWidth, needed: document.documentElement.scrollWidth,
    images: document.images.length,
    broken: [...document.images].filter(each => !each.naturalWidth).map(each => each.alt),
    headings: all('h2,h3').map(each => each.textContent), links: all('nav a').map(each => each.hash.slice(1)),
    ids: all('section').map(each => each.id),
  };
  parent.postMessage(JSON.stringify(seen), '*');
});</script>"""
# Says which Chinese letters of the page are drawn as a letter of no font is, or are not as wide as they are high.
LETTERS = """<script>addEventListener('load', () => document.fonts.ready.then(() => {
  const draw = (letter, family) => {
    const canvas = Object.assign(document.createElement('canvas'), {width: 48, height: 48});
    const context = canvas.getContext('2d');
    context.font = `32px ${family}`; context.fillText(letter, 4, 36);
    return canvas.toDataURL();
  };
  const seen = {letters: {}, boxes: []}, walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode, tag = node.parentElement.tagName, style = getComputedStyle(node.parentElement);
    for (const found of node.textContent.matchAll(/\\p{Script=Han}/gu)) {
      const letter = found[0], range = document.createRange();
      range.setStart(node, found.index); range.setEnd(node, found.index + letter.length);
      const width = range.getBoundingClientRect().width / parseFloat(style.fontSize);
      const box = draw(letter, style.fontFamily) === draw('\\uE123', style.fontFamily);
      if (width && (box || Math.abs(width - 1) > 0.02)) seen.boxes.push(tag + letter);  // 0: folded away
      if (!(seen.letters[tag] ??= '').includes(letter)) seen.letters[tag] += letter;
    }
  }
  parent.postMessage(JSON.stringify(seen), '*');
}));</script>"""
# A window of headless Chromium is at least 500 pixels wide; a frame in it is as narrow as a phone.
FRAME = """<!doctype html><meta charset=utf-8><output id=seen></output>
<script>addEventListener('message', event => document.getElementById('seen').textContent = event.data)</script>
<iframe src=page.html style="border:0;width:{width}px;height:3000px"></iframe>"""


def browse(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Chromium without a window and without a network."""
    quiet = ["--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
    quiet += [
        "--disable-component-update",
        "--disable-sync",
        "--hide-scrollbars",
        "--host-resolver-rules=MAP * ~NOTFOUND",
    ]
    words = [CHROMIUM, "--headless", "--no-sandbox", *quiet, f"--user-data-dir={home / 'profile'}", *arguments]
    return subprocess.run(words, capture_output=True, text=True, timeout=120, check=True)


def look(page: str, home: Path, width: int, probe: str = PROBE) -> dict[str, Any]:
    """Return what a browser makes of a page in so many pixels of width."""
    (home / "page.html").write_text(page + probe, encoding="utf-8")
    (home / "frame.html").write_text(FRAME.format(width=width), encoding="utf-8")
    dumped = browse(home, "--virtual-time-budget=10000", "--dump-dom", (home / "frame.html").as_uri()).stdout
    found = re.search(r'<output id="seen">(.*?)</output>', dumped, re.DOTALL)
    assert found, dumped[-2000:]
    seen: dict[str, Any] = json.loads(html.unescape(found[1]))
    return seen


@pytest.fixture(params=["named_run", "several_run"])
def page(request: pytest.FixtureRequest) -> str:
    """The report of a run of one label a picture, and of several."""
    folder: Path = request.getfixturevalue(request.param)
    return (folder / "report.html").read_text(encoding="utf-8")


def test_phone_shows_the_whole_page_without_scrolling_sideways(page: str, tmp_path: Path) -> None:
    seen = look(page, tmp_path, 390)
    assert (seen["width"], seen["needed"], seen["broken"]) == (390, 390, [])
    assert seen["images"] > 5
    assert set(seen["headings"]) >= SECTIONS
    assert seen["links"] == seen["ids"]


def test_broken_picture_and_wide_line_would_be_seen(tmp_path: Path) -> None:
    planted = "<!doctype html><meta charset=utf-8><meta name=viewport content='width=device-width'>"
    planted += "<img alt=torn src='data:image/png;base64,AAAA'><div style='width:900px'>wide</div>"
    seen = look(planted, tmp_path, 390)
    assert (seen["broken"], seen["needed"] > 390) == (["torn"], True)


def test_chinese_letters_are_drawn_in_text_tables_and_code(named_run: Path, tmp_path: Path) -> None:
    """This can fail only where no font is installed that has them, such as on the machines of CI."""
    seen = look((named_run / "report.html").read_text(encoding="utf-8"), tmp_path, 390, LETTERS)
    assert {"TD", "B", "SPAN"} <= seen["letters"].keys()
    assert set(seen["letters"]["TD"]) == set("新冠肺炎")
    assert seen["boxes"] == []
    code = look(write_page("码", [("标题", show_code("数据集"))], ""), tmp_path, 390, LETTERS)
    assert code == {"letters": {"A": "标题", "H2": "标题", "PRE": "数据集"}, "boxes": []}


def test_letter_that_no_font_has_would_be_seen(tmp_path: Path) -> None:
    planted = "<!doctype html><meta charset=utf-8><body><p>\U0002fa1f</p>"  # a code of Han that is assigned to nothing
    assert look(planted, tmp_path, 390, LETTERS.replace("p{Script=Han}", "p{Any}"))["boxes"] == ["P\U0002fa1f"]


def test_page_prints(named_run: Path, tmp_path: Path) -> None:
    out = tmp_path / "report.pdf"
    browse(tmp_path, f"--print-to-pdf={out}", (named_run / "report.html").as_uri())
    assert out.read_bytes()[:5] == b"%PDF-"
    assert 2 <= len(re.findall(rb"/Type\s*/Page\b", out.read_bytes())) <= 20
