/** The page at /: pictures come in, are answered one after the other, and are shown. */

import { drawAbout } from "./about.js";
import { drawEntry, sayEntry } from "./answer.js";
import { predict, readModel, Refusal } from "./ask.js";
import { find, make, name } from "./dom.js";
import { drawMap, isPart } from "./heat.js";
import { clear, drawHistory, keep, remember, shrink } from "./history.js";
import { forget } from "./token.js";
import { display, purpose, sentence } from "./words.js";

const NARROW = "(max-width: 46rem)";
const SMALL = 240;

let model = null;
let shown = null;
let waiting = 0;
let turn = Promise.resolve();

/** Run a job after all earlier ones. */
function inTurn(job) {
  turn = turn.then(job, job);
  return turn;
}

function addPictures(files) {
  for (const file of files) {
    waiting += 1;
    inTurn(() => answerPicture(file)).finally(() => (waiting -= 1));
  }
}

async function answerPicture(file) {
  const image = await loadPicture(file);
  stage(image);
  showBusy(file.name);
  const entry = { name: file.name, thumbnail: shrink(image), file };
  await ask(entry);
  remember(entry);
  await show(entry, image);
  find("said").textContent = sayEntry(entry, model);
  if (waiting <= 1 && matchMedia(NARROW).matches) find("answer").scrollIntoView({ block: "nearest" });
}

/** Put the answer, or the reason why there is none, into an entry. */
async function ask(entry) {
  try {
    checkSize(entry.file);
    entry.answer = await predict(entry.file, find("explain").checked);
  } catch (error) {
    if (!(error instanceof Refusal)) throw error;
    entry.refusal = { title: error.title, detail: error.message };
  }
  if (entry.answer && entry.answer.bundle !== model?.fingerprints.bundle) await loadModel();
}

/** Refuse here what the endpoint would: it may close the connection before the browser has read why. */
function checkSize(file) {
  const most = Math.floor((model?.limits.max_mib ?? Infinity) * 2 ** 20);
  if (file.size <= most) return;
  const [size, limit] = [file.size, most].map((each) => each.toLocaleString("en"));
  throw new Refusal("The picture is too large", `It has ${size} bytes, over the limit of ${limit}; send a smaller one.`);
}

function showBusy(file) {
  const more = waiting > 1 ? ` ${waiting - 1} more to come.` : "";
  find("answer").replaceChildren(
    make("p", { className: "soft file" }, name(file)),
    make("p", { className: "busy", textContent: `Asking the model …${more}` }),
  );
}

/** Return the element of a picture, null where the browser cannot show it. */
async function loadPicture(source) {
  const address = typeof source === "string" ? source : URL.createObjectURL(source);
  const image = make("img", { src: address, alt: "The picture" });
  try {
    await image.decode();
    const longest = Math.max(image.naturalWidth, image.naturalHeight);
    if (longest < SMALL) image.style.width = `${(image.naturalWidth * SMALL) / longest}px`;
    return image;
  } catch {
    return null;
  } finally {
    if (typeof source !== "string") URL.revokeObjectURL(address);
  }
}

function stage(image) {
  const shows = image
    ? make("div", { className: "frame" }, image)
    : make("p", { className: "soft", textContent: "This browser cannot show this file." });
  find("stage").replaceChildren(shows);
  find("stage").hidden = false;
  find("place").textContent = "Drop or paste more";
}

async function show(entry, image) {
  shown = entry;
  stage(image);
  find("answer").replaceChildren(...drawEntry(entry, model).filter(Boolean));
  drawHistory(shown, model, showAgain);
  await showMap(entry, image);
}

async function showAgain(entry) {
  await show(entry, await loadPicture(entry.file ?? entry.thumbnail ?? ""));
  find("said").textContent = sayEntry(entry, model);
}

/** Lay the heat map over the picture, if it is wanted and there is one, and say what it covers. */
async function showMap(entry, image) {
  const explanation = entry.answer?.explanation;
  const note = find("map");
  note.hidden = !find("explain").checked || Boolean(entry.refusal);
  if (note.hidden) return;
  if (!explanation) {
    note.textContent = entry.mapRefusal ?? "The picture itself is no longer here; send it again to see its heat map.";
    return;
  }
  const label = display(model, explanation.label);
  const sides = [image?.naturalWidth, image?.naturalHeight];
  const { canvas, place } = await drawMap(explanation, image && model?.preprocess, ...sides, label);
  if (entry !== shown) return;
  if (image) image.parentElement.append(canvas);
  else find("stage").replaceChildren(make("div", { className: "frame alone" }, canvas));
  const part = image && isPart(place) ? " The model sees only the centre of this picture, and the map covers that." : "";
  note.replaceChildren("Bright places speak for ", name(label), `.${part}`);
}

async function changeExplain() {
  const entry = shown;
  if (!entry) return;
  const lacks = entry.file && entry.answer && !entry.answer.explanation;
  if (find("explain").checked && lacks) await inTurn(() => askForMap(entry));
  if (entry === shown) await show(entry, document.querySelector(".frame img"));
}

async function askForMap(entry) {
  try {
    entry.answer = await predict(entry.file, true);
    keep();
  } catch (error) {
    if (!(error instanceof Refusal)) throw error;
    entry.mapRefusal = sentence(error.message);
  }
}

async function loadModel() {
  try {
    model = await readModel();
  } catch (error) {
    if (!(error instanceof Refusal)) throw error;
    find("purpose").textContent = sentence(error.message);
    return;
  }
  const { max_mib: size, max_megapixels: pixels } = model.limits;
  find("purpose").textContent = purpose(model);
  find("limits").textContent =
    `Up to ${size} MiB and ${pixels} megapixels each. Pictures go to this endpoint and to nobody else.`;
  find("about").replaceChildren(...drawAbout(model).filter(Boolean));
  find("about").hidden = false;
  document.title = `Ask about a picture · ${model.model.name}`;
  drawHistory(shown, model, showAgain);
}

function takeDrop(event) {
  event.preventDefault();
  find("drop").classList.remove("over");
  if (event.dataTransfer.files.length) addPictures(event.dataTransfer.files);
  else find("said").textContent = "That is no file; drop a picture's file.";
}

function connect() {
  for (const [button, input] of [["choose", "file"], ["photograph", "camera"]]) {
    find(button).onclick = () => find(input).click();
    find(input).onchange = (event) => {
      addPictures([...event.target.files]);
      event.target.value = ""; // or the same file could not be chosen again
    };
  }
  document.ondragover = (event) => {
    event.preventDefault();
    find("drop").classList.add("over");
  };
  document.ondragleave = (event) => event.relatedTarget ?? find("drop").classList.remove("over");
  document.ondrop = takeDrop;
  document.onpaste = (event) => {
    if (!event.clipboardData.files.length) return;
    event.preventDefault();
    addPictures(event.clipboardData.files);
  };
  find("explain").onchange = changeExplain;
  find("forget").onclick = forget;
  find("clear").onclick = () => {
    clear();
    drawHistory(null, model, showAgain);
    find("choose").focus();
  };
}

connect();
find("purpose").textContent = "Asking what is served here …";
drawHistory(null, model, showAgain);
await loadModel();
