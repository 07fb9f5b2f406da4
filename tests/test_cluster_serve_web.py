"""The endpoint's pages for people, in a real browser against a real endpoint."""

from __future__ import annotations

import base64
import io
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from endpoints import MAX_MIB, OPTIONS
from fastapi.testclient import TestClient
from PIL import Image
from playwright.sync_api import Browser, Locator, Route, expect, sync_playwright
from playwright.sync_api import Page as Tab

from cluster.serve.answer import Prediction, Wishes
from cluster.serve.api import build_api
from cluster.serve.options import Front, Limits, read_options
from cluster.serve.predictor import Predictor
from cluster.serve.web.pages import PAGES
from trainer.contract.preprocess import PreprocessSpec, apply_geometry

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or ""
LOOK = "A person should look at this picture"
NAMES = [
    "新冠肺炎",
    "<i>x & 'y'</i>",
    "ذات الرئة",
    "longer_than_a_phone_is_wide" * 3,
]
WAIT_MS = 60_000
REFUSED = "Failed to load resource: the server responded with a status of "
"""What Chromium writes about each problem that the endpoint answers with."""

# The lowest contrast of any text with what lies behind it, as WCAG 2 counts it, and that text.
CONTRAST = """() => {
  const parse = (text) => text.match(/[\\d.]+/g).map(Number);
  const linear = (value) => (value / 255 <= 0.04045 ? value / 255 / 12.92 : ((value / 255 + 0.055) / 1.055) ** 2.4);
  const light = ([red, green, blue]) => 0.2126 * linear(red) + 0.7152 * linear(green) + 0.0722 * linear(blue);
  const behind = (element) => {
    for (let each = element; each; each = each.parentElement) {
      const colour = parse(getComputedStyle(each).backgroundColor);
      if ((colour[3] ?? 1) === 1) return colour;
    }
    return [255, 255, 255];
  };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  let worst = [99, ""];
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || !element.checkVisibility()) continue;
    const [low, high] = [parse(getComputedStyle(element).color), behind(element)].map(light).sort((a, b) => a - b);
    const contrast = (high + 0.05) / (low + 0.05);
    if (contrast < worst[0]) worst = [contrast, walker.currentNode.data];
  }
  return worst;
}"""
# Hands a file to the page as a drag or a paste does.
HAND_OVER = """([type, files]) => {
  const data = new DataTransfer();
  for (const [name, text] of files) {
    const bytes = Uint8Array.from(atob(text), (each) => each.charCodeAt(0));
    data.items.add(new File([bytes], name));
  }
  document.getElementById("drop").dispatchEvent(
    new DragEvent(type, { dataTransfer: data, bubbles: true, cancelable: true }));
}"""
COPY = """async (text) => {
  const bytes = Uint8Array.from(atob(text), (each) => each.charCodeAt(0));
  await navigator.clipboard.write([new ClipboardItem({ "image/png": new Blob([bytes], { type: "image/png" }) })]);
}"""


@dataclass
class Watched:
    """A tab, and what its console and its requests have said."""

    tab: Tab
    url: str
    complaints: list[str] = field(default_factory=list)
    addresses: list[str] = field(default_factory=list)

    def open(self, path: str = "/") -> Tab:
        """Return the tab with a page of the endpoint, once it knows its model."""
        self.tab.goto(self.url + path)
        if not path.endswith("docs"):
            expect(self.tab.locator("#about h2")).to_be_visible(timeout=WAIT_MS)
        return self.tab

    def find_outside(self) -> list[str]:
        """Return the addresses that are not of this endpoint."""
        return [each for each in self.addresses if not each.startswith((f"{self.url}/", "blob:", "data:"))]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if not CHROMIUM:
        pytest.skip("no chromium on this machine; apt-get install chromium brings one")
    with (
        sync_playwright() as playwright,
        playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"]) as started,
    ):
        yield started


@pytest.fixture
def watch(browser: Browser, endpoint_url: str) -> Iterator[Callable[..., Watched]]:
    """Opens tabs; at the end, none may have complained or have asked for anything elsewhere."""
    tabs = []

    def watch(**options: Any) -> Watched:
        watched = Watched(browser.new_context(**options).new_page(), endpoint_url)
        watched.tab.on("request", lambda request: watched.addresses.append(request.url))
        watched.tab.on("pageerror", lambda error: watched.complaints.append(str(error)))
        watched.tab.on("console", lambda said: watched.complaints.append(said.text))
        tabs.append(watched)
        return watched

    yield watch
    for each in tabs:
        each.tab.unroute_all(behavior="ignoreErrors")  # or a file that still loads fails in the next test
        each.tab.context.close()
        assert [said for said in each.complaints if not said.startswith(REFUSED)] == []
        assert each.find_outside() == []


@pytest.fixture
def tab(watch: Callable[..., Watched]) -> Tab:
    return watch(viewport={"width": 1200, "height": 900}).open()


@pytest.fixture(scope="module")
def files(pictures: Path) -> list[Path]:
    return sorted((pictures / "test").glob("*/*"))


@pytest.fixture(scope="module")
def doubtful(endpoint_url: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A picture that a person should look at, and one that nobody needs to."""
    said: dict[bool, Path] = {}
    for colour in ("black", "white", "red", "green", "blue", "lightblue", "gray"):
        file = tmp_path_factory.mktemp("plain") / f"{colour}.png"
        Image.new("RGB", (48, 48), colour).save(file)
        said.setdefault(ask_directly(endpoint_url, file)["abstain"], file)
    return said[True], said[False]


def ask_directly(url: str, file: Path, query: str = "") -> dict[str, Any]:
    return dict(httpx.post(f"{url}/v1/predict{query}", content=file.read_bytes(), timeout=60).json())


def say(share: float) -> str:
    """Return a share as the page writes it: never as none or all."""
    return "<0.1%" if share < 0.001 else ">99.9%" if share > 0.999 else f"{100 * share:.1f}%"


def choose(tab: Tab, *files: Path, total: int | None = None) -> None:
    """Choose pictures and wait until the history has `total` answers, by default as many as were chosen."""
    tab.set_input_files("#file", list(files))
    wait_for_answers(tab, len(files) if total is None else total)


def wait_for_answers(tab: Tab, total: int) -> None:
    expect(tab.locator("#history li")).to_have_count(total, timeout=WAIT_MS)
    expect(tab.locator(".busy")).to_have_count(0, timeout=WAIT_MS)


def assert_shown(tab: Tab, answer: dict[str, Any]) -> None:
    """Check that the tab shows an answer as /v1/predict gives it."""
    assert tab.locator(".verdict strong").inner_text() == answer["label"]
    ranked = sorted(answer["probabilities"].items(), key=lambda pair: -pair[1])
    bars = tab.locator(".bars li")
    assert bars.locator(".name").all_inner_texts() == [label for label, _ in ranked]
    assert bars.locator(".share").all_inner_texts() == [say(share) for _, share in ranked]
    widths = [float(each.evaluate("bar => parseFloat(bar.style.width)")) for each in bars.locator(".bar").all()]
    assert widths == pytest.approx([100 * share for _, share in ranked], abs=0.01)
    assert (tab.locator(".notice", has_text=LOOK).count() == 1) == answer["abstain"]


def answer_with(tab: Tab, answer: dict[str, Any]) -> None:
    """Give this answer in place of the endpoint's."""
    tab.route("**/v1/predict", lambda route: route.fulfill(json=answer))


def encode(file: Path) -> list[str]:
    return [file.name, base64.b64encode(file.read_bytes()).decode()]


def test_chosen_picture_is_shown_with_the_answer_of_the_endpoint(
    tab: Tab, endpoint_url: str, files: list[Path]
) -> None:
    for number, file in enumerate(files[::9], 1):
        choose(tab, file, total=number)
        assert_shown(tab, ask_directly(endpoint_url, file))
        assert tab.locator("#answer .file").inner_text() == file.name
        assert tab.locator(".frame img").evaluate("image => image.naturalWidth") > 0


def test_dropped_pictures_are_answered_one_after_the_other(tab: Tab, endpoint_url: str, files: list[Path]) -> None:
    course: list[str] = []
    tab.on("request", lambda request: course.append("asked") if "predict" in request.url else None)
    tab.on("requestfinished", lambda request: course.append("answered") if "predict" in request.url else None)
    chosen = [files[0], files[9], files[17]]
    tab.evaluate(HAND_OVER, ["dragover", []])
    assert "over" in str(tab.locator("#drop").get_attribute("class"))
    tab.evaluate(HAND_OVER, ["drop", [encode(file) for file in chosen]])
    wait_for_answers(tab, 3)
    assert course == ["asked", "answered"] * 3
    assert tab.locator("#history .name").all_inner_texts() == [
        ask_directly(endpoint_url, file)["label"] for file in reversed(chosen)
    ]
    assert_shown(tab, ask_directly(endpoint_url, chosen[-1]))


def test_picture_is_pasted_from_the_clipboard(
    watch: Callable[..., Watched], endpoint_url: str, files: list[Path]
) -> None:
    picture = next(file for file in files if file.suffix == ".png")
    tab = watch(permissions=["clipboard-read", "clipboard-write"]).open()
    tab.evaluate(COPY, encode(picture)[1])
    tab.keyboard.press("Control+v")
    wait_for_answers(tab, 1)
    assert_shown(tab, ask_directly(endpoint_url, picture))


def test_phone_offers_its_camera_and_needs_no_scrolling_sideways(
    watch: Callable[..., Watched], endpoint_url: str, files: list[Path]
) -> None:
    watched = watch(viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True)
    tab = watched.open()
    assert tab.locator("#camera").get_attribute("capture") == "environment"
    with tab.expect_file_chooser() as chooser:
        tab.get_by_role("button", name="Take a photo").tap()
    chooser.value.set_files(files[0])
    wait_for_answers(tab, 1)
    assert_shown(tab, ask_directly(endpoint_url, files[0]))
    for path in ("/", "/docs"):
        watched.open(path)
        assert tab.evaluate("[innerWidth, document.documentElement.scrollWidth]") == [360, 360]


def test_desk_offers_no_camera(tab: Tab) -> None:
    expect(tab.get_by_role("button", name="Take a photo")).to_be_hidden()


def test_broken_picture_gets_the_sentence_of_the_endpoint(
    tab: Tab, endpoint_url: str, files: list[Path], tmp_path: Path
) -> None:
    (tmp_path / "broken.png").write_bytes(files[0].read_bytes()[:300])
    choose(tab, tmp_path / "broken.png", files[1])
    tab.get_by_role("button", name="No answer").click()
    detail = ask_directly(endpoint_url, tmp_path / "broken.png")["detail"]
    assert "cannot be decoded" in detail
    assert tab.locator(".notice.error").inner_text().lower() == f"{detail}.".lower()
    expect(tab.get_by_role("status")).to_contain_text("broken.png: The picture cannot be decoded")


def test_picture_over_the_limit_is_not_sent(tab: Tab, tmp_path: Path) -> None:
    (tmp_path / "large.png").write_bytes(bytes(int(MAX_MIB * 2**20) + 1))
    asked: list[str] = []
    tab.on("request", lambda request: asked.append(request.url) if "predict" in request.url else None)
    choose(tab, tmp_path / "large.png")
    expect(tab.locator(".notice.error")).to_contain_text("It has 524,289 bytes, over the limit of 524,288")
    assert asked == []


def test_endpoint_that_is_gone_and_one_that_says_nothing_are_told_apart(tab: Tab, files: list[Path]) -> None:
    tab.route("**/v1/predict", lambda route: route.fulfill(status=502, body="<h1>Bad gateway</h1>"))
    choose(tab, files[0])
    expect(tab.locator(".notice.error")).to_contain_text("status 502")
    tab.unroute("**/v1/predict")
    tab.route("**/v1/predict", lambda route: route.fulfill(status=404, json={"detail": "a sentence of the endpoint"}))
    choose(tab, files[0], total=2)
    expect(tab.locator(".notice.error")).to_contain_text("A sentence of the endpoint.")


def test_busy_endpoint_is_asked_again(tab: Tab, endpoint_url: str, files: list[Path]) -> None:
    refused: list[str] = []

    def refuse_first(route: Route) -> None:
        if refused:
            return route.fallback()
        refused.append(route.request.url)
        return route.fulfill(status=503, headers={"retry-after": "1"}, json={"detail": "busy"})

    tab.route("**/v1/predict", refuse_first)
    choose(tab, files[0])
    assert len(refused) == 1
    assert_shown(tab, ask_directly(endpoint_url, files[0]))


def test_person_is_told_when_to_look_and_why(tab: Tab, doubtful: tuple[Path, Path], endpoint_url: str) -> None:
    for number, file in enumerate(doubtful, 1):
        choose(tab, file, total=number)
        answer = ask_directly(endpoint_url, file)
        assert_shown(tab, answer)
        facts = tab.locator("#answer .facts").inner_text()
        assert "the true class is among them for 80% of pictures" in facts
        assert f"{answer['ood_score']:.4g}"[:4] in facts
        status = f"{file.name}: {answer['label']}, {say(answer['probability'])}."
        assert tab.get_by_role("status").inner_text() == status + (f" {LOOK}." if answer["abstain"] else "")
    tab.locator("#history button").nth(1).click()
    expect(tab.locator("#answer .notice li").first).to_be_visible()


def test_page_says_what_is_served(tab: Tab, endpoint_url: str) -> None:
    model = httpx.get(f"{endpoint_url}/v1/model").json()
    assert tab.locator("#purpose").inner_text() == "The model tells apart 3 classes: blue, green and red."
    about = tab.locator("#about").inner_text()
    for text in (model["model"]["name"], model["fingerprints"]["bundle"][:12], "64 × 64 pixels", "No metrics are"):
        assert text in about
    for note in model["decision"]["fitted"]["notes"]:
        assert note in about


def test_heat_map_is_laid_over_the_picture_on_request(tab: Tab, endpoint_url: str, files: list[Path]) -> None:
    choose(tab, files[1])
    assert tab.locator("canvas").count() == 0
    tab.get_by_label("Show which places").check()
    heat = tab.get_by_role("img", name="Heat map: bright places speak for")
    expect(heat).to_be_visible(timeout=WAIT_MS)
    assert heat.bounding_box() == pytest.approx(tab.locator(".frame img").bounding_box(), abs=1)
    png = ask_directly(endpoint_url, files[1], "?explain=true")["explanation"]["png"]
    assert_coloured_by(heat, png)
    expect(tab.locator("#map")).to_have_text(f"Bright places speak for {tab.locator('.verdict strong').inner_text()}.")
    tab.get_by_label("Show which places").uncheck()
    expect(heat).to_have_count(0)


def assert_coloured_by(canvas: Locator, png: str) -> None:
    """Check that a canvas is brighter where a gray map is brighter."""
    gray = np.asarray(Image.open(io.BytesIO(base64.b64decode(png)))).astype(float)
    read = "canvas => [...canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data]"
    colours = np.array(canvas.evaluate(read)).reshape(*gray.shape, 4)
    assert np.ptp(gray) > 20
    assert np.corrcoef(gray.ravel(), colours[..., :3].sum(-1).ravel())[0, 1] > 0.9
    assert np.unique(colours[..., 3]).tolist() == [158]


@pytest.mark.parametrize(("width", "height"), [(300, 200), (200, 301), (64, 64), (90, 40)])
@pytest.mark.parametrize(
    "spec",
    [
        PreprocessSpec(size=64),
        PreprocessSpec(size=64, policy="crop"),
        PreprocessSpec(size=48, policy="crop", resize=64, rounding="down"),
        PreprocessSpec(size=64, policy="letterbox"),
    ],
    ids=lambda spec: f"{spec.policy}-{spec.resize}",
)
def test_places_of_the_map_are_those_that_the_model_sees(
    tab: Tab, spec: PreprocessSpec, width: int, height: int
) -> None:
    """A picture whose colours are its coordinates tells where each pixel of the model's input came from."""
    across, down = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    pixels = np.stack([255 * across / width, 255 * down / height, np.full_like(down, 255)], -1).round().astype(np.uint8)
    seen = apply_geometry(pixels, spec).numpy().astype(float) / 255
    script = "async ([spec, ...sides]) => (await import('./web/heat.js')).placeMap(spec, ...sides)"
    place = tab.evaluate(script, [spec.model_dump(mode="json"), width, height])
    rows, columns = np.nonzero(seen[2] > 0.9)  # letterbox pads with black
    for axis, at in ((0, columns), (1, rows)):
        start, length = place["source"][axis], place["source"][axis + 2]
        assert (at.min(), at.max()) == (start, start + length - 1)
        expected = place["target"][axis] + (at + 0.5 - start) / length * place["target"][axis + 2]
        assert np.abs(seen[axis][rows, columns] - expected).max() < 1.5 / min(spec.size, width, height)


def test_page_says_that_the_map_covers_the_centre_of_a_cropped_picture(tab: Tab, files: list[Path]) -> None:
    def crop(route: Route) -> None:
        response = route.fetch()
        page = response.json()
        page["preprocess"] |= {"policy": "crop", "resize": 80}
        route.fulfill(response=response, json=page)

    tab.route("**/v1/model", crop)
    tab.reload()
    expect(tab.locator("#about h2")).to_be_visible()
    tab.get_by_label("Show which places").check()
    choose(tab, files[0])
    expect(tab.locator("#map")).to_contain_text("The model sees only the centre of this picture")
    heat, image = tab.locator(".heat").bounding_box(), tab.locator(".frame img").bounding_box()
    assert heat is not None
    assert image is not None
    assert heat["width"] == pytest.approx(heat["height"], abs=1)
    assert heat["width"] == pytest.approx(0.8 * min(image["width"], image["height"]), abs=1)
    assert heat["x"] + heat["width"] / 2 == pytest.approx(image["x"] + image["width"] / 2, abs=1)


def test_whole_flow_goes_by_keyboard_alone(tab: Tab, endpoint_url: str, files: list[Path]) -> None:
    tab.on("filechooser", lambda _: None)  # from now on: a key that comes before the listener would open a real dialog
    go_to(tab, "choose")
    for number, (file, key) in enumerate(((files[0], "Enter"), (files[9], "Space")), 1):
        with tab.expect_file_chooser() as chooser:
            tab.keyboard.press(key)
        chooser.value.set_files(file)
        wait_for_answers(tab, number)
    go_to(tab, "explain")
    tab.keyboard.press("Space")
    expect(tab.locator(".heat")).to_be_visible(timeout=WAIT_MS)
    go_to(tab, "summary")
    tab.keyboard.press("Enter")
    assert '"logits"' in tab.locator("details pre").inner_text()
    for _ in range(2):
        go_to(tab, "history")
    tab.keyboard.press("Enter")
    expect(tab.locator("#answer .file")).to_have_text(files[0].name)
    assert_shown(tab, ask_directly(endpoint_url, files[0]))
    assert tab.evaluate("document.activeElement.getAttribute('aria-current')") == "true"


def go_to(tab: Tab, wanted: str) -> None:
    """Press Tab until an element is focused; each on the way must show it."""
    for _ in range(40):
        tab.keyboard.press("Tab")
        found, width, style = tab.evaluate(
            "(({ outlineWidth, outlineStyle }, each) => [each.id || each.closest('[id]')?.id + ' ' + each.localName,"
            "parseFloat(outlineWidth), outlineStyle])(getComputedStyle(document.activeElement), document.activeElement)"
        )
        if found.startswith("undefined"):  # the browser's own
            continue
        assert (width >= 2, style) == (True, "solid"), f"{found} does not show that it is focused"
        if wanted in found:
            return
    raise AssertionError(f"Tab does not reach {wanted}")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_contrast_by_day_and_by_night(
    scheme: str, watch: Callable[..., Watched], doubtful: tuple[Path, Path], tmp_path: Path
) -> None:
    (tmp_path / "broken.png").write_bytes(b"nothing")
    watched = watch(color_scheme=scheme)
    tab = watched.open()
    for number, file in enumerate((*doubtful, tmp_path / "broken.png"), 1):
        choose(tab, file, total=number)
        contrast, text = tab.evaluate(CONTRAST)
        assert contrast >= 4.5, text
    paper = tab.evaluate("parseInt(getComputedStyle(document.body).backgroundColor.match(/\\d+/)[0])")
    assert (paper < 60) == (scheme == "dark")
    tab.evaluate("document.getElementById('token').showModal()")
    assert tab.evaluate(CONTRAST)[0] >= 4.5
    watched.open("/docs")
    assert tab.evaluate(CONTRAST)[0] >= 4.5


def test_weak_text_would_be_seen(tab: Tab) -> None:
    tab.evaluate("document.getElementById('limits').style.color = '#999'")
    assert tab.evaluate(CONTRAST)[0] < 4.5


def test_last_twenty_answers_stay_in_the_tab_and_are_shown_again(
    tab: Tab, endpoint_url: str, files: list[Path]
) -> None:
    choose(tab, *files[:22], total=20)
    expect(tab.get_by_role("status")).to_contain_text(files[21].name, timeout=WAIT_MS)
    titles = "all => all.map(each => each.title)"
    newest_first = [file.name for file in reversed(files[2:22])]
    assert tab.locator("#history button").evaluate_all(titles) == newest_first
    tab.reload()
    assert tab.locator("#history button").evaluate_all(titles) == newest_first
    tab.locator("#history button").nth(19).click()
    expect(tab.locator("#answer .file")).to_have_text(files[2].name)
    assert_shown(tab, ask_directly(endpoint_url, files[2]))
    expect(tab.locator(".frame img")).to_be_visible()
    tab.get_by_label("Show which places").check()
    expect(tab.locator("#map")).to_contain_text("send it again")
    tab.get_by_role("button", name="Clear").click()
    tab.reload()
    expect(tab.locator("#earlier")).to_be_hidden()


def test_token_is_asked_for_kept_in_the_tab_and_sent(tab: Tab, endpoint_url: str, files: list[Path]) -> None:
    sent: list[str | None] = []

    def guard(route: Route) -> None:
        sent.append(route.request.headers.get("authorization"))
        if sent[-1] == "Bearer right":
            return route.fallback()
        return route.fulfill(status=401, json={"title": "A token is needed", "detail": "this needs a token"})

    tab.route("**/v1/**", guard)
    tab.set_input_files("#file", files[0])
    dialog = tab.get_by_role("dialog", name="A token is needed")
    for given in ("wrong", "right"):
        expect(dialog).to_contain_text("This needs a token.")
        tab.get_by_label("Token", exact=True).fill(given)
        tab.keyboard.press("Enter")
        if given == "wrong":
            expect(tab.get_by_label("Token", exact=True)).to_have_value("")
    wait_for_answers(tab, 1)
    assert_shown(tab, ask_directly(endpoint_url, files[0]))
    assert sent == [None, "Bearer wrong", "Bearer right"]
    tab.reload()
    expect(tab.locator("#about h2")).to_be_visible()
    assert sent[-1] == "Bearer right"
    tab.get_by_role("button", name="Forget the token").click()
    tab.set_input_files("#file", files[0])
    tab.get_by_role("button", name="Cancel").click()
    expect(tab.locator(".notice.error")).to_contain_text("This needs a token")


def test_names_of_any_script_are_text_and_never_markup(watch: Callable[..., Watched], files: list[Path]) -> None:
    many = [*NAMES, *(f"class {number}" for number in range(40))]
    shares = {each: 1 / 2 ** (place + 1) for place, each in enumerate(many)}

    def rename(route: Route) -> None:
        response = route.fetch()
        page = response.json() | {"classes": many, "display_names": many, "metrics": {"<b>F1</b>": 0.5}}
        route.fulfill(response=response, json=page)

    answer = {"label": many[0], "labels": many[:1], "probability": 0.5, "probabilities": shares, "bundle": "<u>0</u>"}
    watched = watch(viewport={"width": 360, "height": 740})
    watched.tab.route("**/v1/model", rename)
    answer_with(watched.tab, answer | {"timings": {"model_ms": 1}})
    tab = watched.open()
    choose(tab, files[0])
    assert tab.locator(".bars .name").all_inner_texts() == many[:10]
    assert set(tab.locator(".bars .name").evaluate_all("all => all.map(each => each.dir)")) == {"auto"}
    expect(tab.locator(".bars li").last).to_have_text("and 34 less probable")
    assert tab.locator("i, b, u").count() == 0
    assert tab.evaluate("document.documentElement.scrollWidth") == 360


def test_several_labels_are_said_together(tab: Tab, files: list[Path]) -> None:
    def change(route: Route) -> None:
        response = route.fetch()
        page = response.json() | {"task": "multi-label", "decision": {"rule": "each"}}
        route.fulfill(response=response, json=page)

    answer: dict[str, Any] = {"probabilities": {"blue": 0.9, "green": 0.8, "red": 0.1}, "bundle": "0" * 64}
    for labels, said in ((["blue", "green"], "blue and green"), ([], "None of the classes")):
        given = {"label": (labels or [None])[0], "labels": labels, "probability": 0.9, "timings": {"model_ms": 1}}
        tab.unroute_all()
        tab.route("**/v1/model", change)
        answer_with(tab, answer | given)
        tab.reload()
        expect(tab.locator("#purpose")).to_contain_text("any number of them may be there")
        choose(tab, files[0], total=1 if labels else 2)
        assert tab.locator(".verdict strong").inner_text() == said
        assert tab.locator(".bars .decided").count() == len(labels)


def test_page_lies_under_any_path_of_a_proxy(
    watch: Callable[..., Watched], endpoint_url: str, files: list[Path]
) -> None:
    prefix = f"{endpoint_url}/models/colours"

    def strip(route: Route) -> None:
        route.fulfill(response=route.fetch(url=route.request.url.replace(prefix, endpoint_url)))

    watched = watch()
    watched.tab.route(f"{prefix}/**", strip)
    tab = watched.open("/models/colours/")
    choose(tab, files[0])
    assert_shown(tab, ask_directly(endpoint_url, files[0]))
    tab.get_by_role("link", name="For programs").click()
    expect(tab.locator(".address").first).to_have_text(f"{prefix}/")
    tab.wait_for_load_state("networkidle")
    assert all(each.startswith((f"{prefix}/", "blob:", "data:")) for each in watched.addresses)


def test_docs_name_pages_options_fields_and_limits(watch: Callable[..., Watched], endpoint_url: str) -> None:
    tab = watch().open("/docs")
    text = tab.locator("main").inner_text()
    assert f"curl --data-binary @picture.jpg {endpoint_url}/v1/predict\n" in text
    for each in ("POST /v1/predict", "GET /docs", *Wishes.model_fields, *Prediction.model_fields, *Limits.model_fields):
        assert each in text
    row = tab.get_by_role("row").filter(has_text="max_waiting")
    assert str(OPTIONS["max_waiting"]) in row.locator("td").all_inner_texts()


def test_script_from_elsewhere_would_be_refused_and_seen(browser: Browser, endpoint_url: str) -> None:
    context = browser.new_context()
    watched = Watched(context.new_page(), endpoint_url)
    watched.tab.on("console", lambda said: watched.complaints.append(said.text))
    tab = watched.open()
    tab.evaluate(
        "document.head.append(Object.assign(document.createElement('script'), {src: 'http://127.0.0.1:9/x.js'}))"
    )
    tab.evaluate("document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"document.title = 1\">')")
    tab.wait_for_timeout(300)
    assert any("127.0.0.1:9" in said for said in watched.complaints)
    assert tab.title() != "1"
    context.close()


def make_predictor() -> Predictor:
    """Return a replica's predictor without a bundle, for pages that need none."""
    return Predictor(read_options({"bundle": "/nowhere", "max_mib": 7}))


@pytest.fixture
def client() -> TestClient:
    return TestClient(build_api(make_predictor()))


@pytest.mark.parametrize("path", [page.path for page in PAGES])
def test_pages_are_guarded_by_their_headers(path: str, client: TestClient) -> None:
    response = client.get(path)
    assert response.status_code == 200
    assert response.headers["content-security-policy"] == (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["referrer-policy"] == "no-referrer"
    assert response.headers["cache-control"] == "no-cache"
    kinds = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
    assert response.headers["content-type"].startswith(kinds.get(path.rpartition(".")[2], "text/html"))
    assert client.head(path).status_code == 200


def test_pages_for_people_are_left_out_on_request(client: TestClient) -> None:
    without = TestClient(build_api(make_predictor(), Front(page=False)))
    for page in PAGES:
        refused = without.get(page.path)
        assert refused.status_code == 404
        assert "GET /docs" not in refused.json()["detail"]
    assert without.get("/healthz").status_code == 200
    assert set(client.get("/openapi.json").json()["paths"]) - set(without.get("/openapi.json").json()["paths"]) == {
        "/",
        "/docs",
    }


@pytest.mark.parametrize(("said", "page"), [("on", True), ("off", False), (False, False)])
def test_page_is_an_option_of_the_endpoint(said: Any, page: bool, tmp_path: Path) -> None:
    assert read_options({"bundle": tmp_path, "page": said}).page is page
