// Brings a drawing or a picture into the shape of MNIST's own; `centred` is the twin of
// data/images/centre.py, rounding and single precision included, and a test compares the two.

import { bilinear, border, boxOf, cut, extremes, mapped, maskOf, median, resized, roundHalfEven } from "./arrays.js";

const SIZE = 28;
const BOX = 20;
const FAINT = 0.1; // of the contrast: paper, shadow, compression
const f32 = Math.fround;

/**
 * Brings a picture of a digit, dark on light or light on dark, into MNIST's shape.
 *
 * @param {ArrayLike<number>} grey height rows of width values, 0 to 255
 * @returns {Uint8Array | null} 784 pixels, light on dark; null where nothing is to be seen
 */
export function likeMnist(grey, width, height) {
  const light = lightOnDark(grey, width, height);
  if (!light) return null;
  const ink = inkOf(light, median(border({ width, height, values: light })), extremes(light)[1]);
  return centred({ width, height, values: ink });
}

/**
 * Lays ink where MNIST has it: scaled to fit 20x20 pixels, its centre of mass in the middle of 28x28.
 *
 * @param {Picture} ink 0 on paper, somewhere above 0
 */
export function centred(ink) {
  return framed(fitted(cut(ink, boxOf(maskOf(ink, (value) => value > 0)))));
}

/** The same picture with light ink on dark, whichever it was; null where all of it is the same. */
function lightOnDark(grey, width, height) {
  const picture = new Float32Array(grey);
  const [low, high] = extremes(picture);
  if (!(high > low)) return null;
  const isDark = median(border({ width, height, values: picture })) > low + (high - low) / 2;
  if (isDark) for (let i = 0; i < picture.length; i++) picture[i] = 255 - picture[i];
  return picture;
}

/** How much ink there is at each pixel, 0 to 1. */
function inkOf(grey, ground, high) {
  const ink = new Float32Array(grey.length);
  const range = f32(high - ground);
  for (let i = 0; i < grey.length; i++) {
    const share = Math.min(f32(f32(grey[i] - ground) / range), 1);
    const more = f32(f32(share - f32(FAINT)) / f32(1 - FAINT));
    ink[i] = Math.min(Math.max(more, 0), 1);
  }
  return ink;
}

function fitted(ink) {
  const scale = BOX / Math.max(ink.width, ink.height);
  const [width, height] = [ink.width, ink.height].map((n) => Math.max(1, roundHalfEven(scale * n)));
  const small = resized(ink, width, height, bilinear);
  const most = extremes(small.values)[1]; // thin strokes fade when made smaller
  return mapped(small, (value) => Math.min(Math.max(f32(value / most), 0), 1));
}

function framed({ width, height, values }) {
  const [rows, columns] = [new Float64Array(height), new Float64Array(width)];
  values.forEach((value, i) => {
    rows[Math.floor(i / width)] += value;
    columns[i % width] += value;
  });
  const [top, left] = [offset(rows), offset(columns)];
  const pixels = new Uint8Array(SIZE * SIZE);
  values.forEach((value, i) => {
    const at = (top + Math.floor(i / width)) * SIZE + left + (i % width);
    pixels[at] = roundHalfEven(f32(255 * value));
  });
  return pixels;
}

/** Where the box begins, for the centre of mass to lie on pixel 14. */
function offset(mass) {
  let [moment, sum] = [0, 0];
  mass.forEach((value, i) => {
    moment += value * i;
    sum += value;
  });
  return Math.min(Math.max(0, roundHalfEven(SIZE / 2 - moment / sum)), SIZE - mass.length);
}
