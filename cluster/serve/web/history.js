/** The last answers of this tab, the newest first; thumbnails are kept with them, pictures only while the page stays. */

import { find, make, name, percent } from "./dom.js";
import { read, write } from "./store.js";
import { decided } from "./words.js";

const KEY = "shardline-history";
const MOST = 20;
const THUMBNAIL = 320;

export const entries = JSON.parse(read(KEY) ?? "[]");

/** Put an entry at the front. */
export function remember(entry) {
  entries.unshift(entry);
  entries.splice(MOST);
  keep();
}

export function clear() {
  entries.length = 0;
  keep();
}

/** Write down all but the files and the maps, which may be large. */
export function keep() {
  const kept = entries.map(({ file, mapRefusal, ...entry }) => ({ ...entry, answer: leaveOutMap(entry.answer) }));
  write(KEY, entries.length ? JSON.stringify(kept) : null);
}

function leaveOutMap(answer) {
  if (!answer) return answer;
  const { explanation, ...rest } = answer;
  return rest;
}

/** Return a small copy of a picture as a data: address; null for one that the browser cannot show. */
export function shrink(image) {
  if (!image) return null;
  const scale = Math.min(1, THUMBNAIL / Math.max(image.naturalWidth, image.naturalHeight));
  const sides = [image.naturalWidth, image.naturalHeight];
  const [width, height] = sides.map((side) => Math.max(1, Math.round(side * scale)));
  const canvas = make("canvas", { width, height });
  canvas.getContext("2d").drawImage(image, 0, 0, width, height);
  return canvas.toDataURL("image/webp", 0.8);
}

/** Draw the list; `choose` is called with the entry that somebody wants to see again. */
export function drawHistory(shown, model, choose) {
  find("earlier").hidden = !entries.length;
  const list = find("history");
  const focused = document.activeElement.closest("#history li")?.entry;
  list.replaceChildren(...entries.map((entry) => drawItem(entry, entry === shown, model, choose)));
  [...list.children].find((item) => focused && item.entry === focused)?.firstElementChild.focus();
}

function drawItem(entry, isShown, model, choose) {
  const picture = entry.thumbnail ? make("img", { src: entry.thumbnail, alt: "" }) : make("span", { className: "blank" });
  const label = entry.refusal ? "No answer" : decided(entry.answer, model);
  const share = entry.refusal ? "" : percent(entry.answer.probability);
  const button = make(
    "button",
    { type: "button", title: entry.name, onclick: () => choose(entry) },
    picture,
    name(label),
    make("span", { className: "soft", textContent: share }),
    entry.answer?.abstain ? make("span", { className: "badge", textContent: "needs a look" }) : null,
  );
  if (isShown) button.setAttribute("aria-current", "true");
  return make("li", { entry }, button);
}
