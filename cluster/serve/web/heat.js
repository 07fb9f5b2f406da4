/** The heat map: where it lies on a picture, and how it is coloured. */

import { make } from "./dom.js";

/** Colours from nothing to the most, by equal steps of brightness, so that no colour vision is needed. */
const RAMP = [[0, 0, 4], [66, 10, 104], [147, 38, 103], [221, 81, 58], [252, 165, 10], [252, 255, 164]];
const COVER = 0.62;

/**
 * Return where the model's square input lies on a picture.
 *
 * @param spec Preprocessing of the bundle.
 * @returns source: [left, top, width, height] of the input that shows the picture, in pixels of the input; target: the
 * same of the picture that the input shows, as shares of the picture's sides.
 */
export function placeMap(spec, width, height) {
  const size = spec.size;
  if (spec.policy === "letterbox") {
    const scale = size / Math.max(width, height);
    const sides = [width, height].map((side) => Math.max(1, Math.round(side * scale)));
    return { source: [...sides.map((side) => Math.floor((size - side) / 2)), ...sides], target: [0, 0, 1, 1] };
  }
  const source = [0, 0, size, size];
  if (spec.policy !== "crop") return { source, target: [0, 0, 1, 1] };
  const shorter = Math.max(spec.resize ?? size, size);
  const side = (size / shorter) * Math.min(width, height);
  const shares = [side / width, side / height];
  return { source, target: [...shares.map((share) => (1 - share) / 2), ...shares] };
}

/** Return whether a map shows less than the whole picture. */
export const isPart = (place) => place.target[2] < 0.999 || place.target[3] < 0.999;

/** Return a canvas that lies on a picture of these sides; `spec` is null where the preprocessing is not known. */
export async function drawMap(explanation, spec, width, height, label) {
  const image = make("img", { src: `data:image/png;base64,${explanation.png}` });
  await image.decode();
  const whole = { source: [0, 0, image.naturalWidth, image.naturalHeight], target: [0, 0, 1, 1] };
  const place = spec ? placeMap(spec, width, height) : whole;
  const canvas = make("canvas", { className: "heat", width: place.source[2], height: place.source[3] });
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", `Heat map: bright places speak for ${label}`);
  ["left", "top", "width", "height"].forEach((side, at) => (canvas.style[side] = `${100 * place.target[at]}%`));
  colour(canvas, image, place.source);
  return { canvas, place };
}

function colour(canvas, image, [left, top, width, height]) {
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(image, left, top, width, height, 0, 0, width, height);
  const pixels = context.getImageData(0, 0, width, height);
  for (let at = 0; at < pixels.data.length; at += 4) {
    const [red, green, blue] = mix(pixels.data[at] / 255);
    pixels.data.set([red, green, blue, 255 * COVER], at);
  }
  context.putImageData(pixels, 0, 0);
}

function mix(heat) {
  const place = heat * (RAMP.length - 1);
  const low = Math.min(Math.floor(place), RAMP.length - 2);
  return RAMP[low].map((value, band) => value + (RAMP[low + 1][band] - value) * (place - low));
}
