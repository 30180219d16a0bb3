// From a picture to the digits on it, or to the reason why there are none to be read: the twin of
// data/images/picture.py.

import { blurred, cut, grown, mapped, maskOf, meanOf, median, percentile, reduced, roundHalfEven,
  sumOf, within } from "./arrays.js";
import { extentOf, findDigits } from "./finding.js";
import { findInk } from "./ink.js";
import { withoutLines } from "./lines.js";
import { centred } from "./preprocessing.js";
import { findSheet } from "./sheet.js";

const GRAIN = 300; // pixels of the longer side, from which on paper has a grain
const NOISY = 0.05; // of the light: more, such as dithering, is blurred until it is less
const LONGEST = 450; // pixels of the longer side that are looked at
const CLOSER = 80; // of a digit: fewer are looked at again, larger
const CUTTING = 128; // pixels of the longer side: no photograph, so that the edge cuts nothing off
const FAINT = 0.1; // of a digit's density: what counts as paper, if there is no noise
const [NO_INK, EDGE] = ["no ink", "touches the edge"];

/**
 * One digit of a picture, or why there is none: as the network takes it, and its ink, 0 to 1.
 * @typedef {{pixels: Uint8Array, strokes: Picture, reason: string}} Seen
 */

/**
 * Finds the digits of a picture.
 *
 * @param {Picture[]} picture its colours, 1 or 3
 * @returns {Seen[]} one for each digit, in the order of reading; `pixels` is null where nothing is
 */
export function look(picture) {
  const small = picture.map((colour) => reduced(colour, LONGEST));
  const sheet = findSheet(greyOf(small));
  const { ink, written } = writtenOn(small, sheet);
  let found = findDigits(ink.density, written);
  if (!found.length && small[0] !== picture[0]) { // what may be dust is looked at from nearer
    found = findDigits(ink.density, written, 0);
  }
  if (!found.length) return [{ pixels: null, strokes: null, reason: NO_INK }];
  return found.map((digit) => seen(picture, sheet, ink, digit));
}

const greyOf = (picture) => mapped(picture[0], (_, i) =>
  picture.reduce((sum, { values }) => sum + values[i], 0) / picture.length, Float32Array);

function writtenOn(picture, sheet) {
  const longest = Math.max(sheet.width, sheet.height);
  let ink;
  let grain = Number(longest > GRAIN);
  do {
    ink = findInk(picture.map((colour) => blurred(colour, grain)), sheet);
    grain += 1;
  } while (ink.noise >= NOISY && grain < Math.max(2, Math.floor((2 * longest) / GRAIN)));
  const { density, threshold } = ink;
  return { ink, written: withoutLines(maskOf(density, (value) => value > threshold)) };
}

/** One digit, as MNIST would show it; looked at from nearer if it is small. */
function seen(picture, sheet, ink, digit) {
  const scale = picture[0].height / sheet.height;
  const reason = isCut(digit) ? EDGE : "";
  if (scale > 1 && extentOf(digit) < CLOSER) {
    const near = nearer(picture, sheet, scale, digit);
    if (!near) return { pixels: null, strokes: null, reason: NO_INK };
    [ink, digit] = near;
  }
  const strokes = strokesOf(ink, digit);
  return { pixels: centred(strokes), strokes, reason };
}

/** The ink around a digit in the whole picture, and the same digit there; null if it is none. */
function nearer(picture, sheet, scale, digit) {
  const [y, x] = [scale * (digit.top + digit.bottom), scale * (digit.left + digit.right)]
    .map((twice) => twice / 2);
  const reach = roundHalfEven(1.2 * scale * extentOf(digit));
  const [top, left] = [y, x].map((middle) => Math.max(0, roundHalfEven(middle) - reach));
  const area = { top, left, bottom: top + 2 * reach, right: left + 2 * reach };
  const near = picture.map((colour) => mapped(cut(colour, area), (value) => value, Float32Array));
  // What the paper lies on may be near, too.
  const behind = (place, most) => Math.min(Math.trunc((place + 0.5) / scale), most - 1);
  const { ink, written } = writtenOn(near, maskOf(near[0], (_, i) => {
    const row = behind(top + Math.trunc(i / near[0].width), sheet.height);
    return sheet.values[row * sheet.width + behind(left + (i % near[0].width), sheet.width)];
  }));
  const again = findDigits(ink.density, written, 1).find((each) =>
    each.top <= y - top && y - top <= each.bottom
    && each.left <= x - left && x - left <= each.right);
  return again ? [ink, again] : null;
}

/** Whether it goes on outside; not where it fills the picture, which is a cutting. */
function isCut({ top, bottom, left, right, mask: { width, height } }) {
  const isAcross = (top === 0) === (bottom === height) && (left === 0) === (right === width);
  return Math.max(width, height) > CUTTING && !isAcross;
}

/** The digit's ink alone, from 0 to 1, the noise of paper taken away. */
function strokesOf({ density, noise }, digit) {
  const area = { top: digit.top - 2, bottom: digit.bottom + 2,
    left: digit.left - 2, right: digit.right + 2 };
  const [ink, mask] = [cut(density, area), cut(digit.mask, area)];
  const most = percentile(within(ink, mask), 98);
  const faint = Math.max(FAINT, Math.min(0.5, (2 * noise) / most));
  const near = grown(mask, 1);
  return mapped(ink, (value, i) =>
    (near.values[i] ? Math.min(Math.max((value / most - faint) / (1 - faint), 0), 1) : 0));
}

/**
 * The colours of a picture, 1 or 3, in front of what makes them seen; the twin of what
 * data/images/reading.py does.
 *
 * @param {Uint8ClampedArray} rgba four values a pixel
 * @returns {Picture[]}
 */
export function coloursOf(rgba, width, height) {
  const empty = { width, height, values: new Uint8ClampedArray(width * height) };
  const colours = [0, 1, 2, 3].map((channel) => mapped(empty, (_, i) => rgba[4 * i + channel]));
  const [red, green, blue, alpha] = colours;
  const isGrey = red.values.every((value, i) =>
    value === green.values[i] && value === blue.values[i]);
  const seenOnes = isGrey ? [red] : [red, green, blue];
  return alpha.values.every((value) => value === 255) ? seenOnes : inFront(seenOnes, alpha);
}

/** In front of white or black, or of the paper where that is what is opaque. */
function inFront(colours, alpha) {
  const solid = maskOf(alpha, (value) => value > 127.5);
  const greys = within(greyOf(colours), solid);
  const mean = meanOf(greys);
  const spread = Math.sqrt(meanOf(greys.map((value) => (value - mean) ** 2)));
  // A photograph, of which some corners were cut away, or ink on nothing.
  const isPhotograph = greys.length > alpha.values.length / 2 && spread > 20;
  const ground = isDark(colours, alpha) ? 255 : 0;
  return colours.map((colour) => {
    const behind = isPhotograph ? median(within(colour, solid)) : ground;
    return mapped(colour, (value, i) =>
      behind + (alpha.values[i] / 255) * (value - behind), Float32Array);
  });
}

/** Whether what is to be seen is dark. */
function isDark(colours, alpha) {
  const grey = greyOf(colours).values;
  const seenLight = alpha.values.reduce((sum, share, i) => sum + share * grey[i], 0);
  return seenLight < 127.5 * sumOf(alpha.values);
}
