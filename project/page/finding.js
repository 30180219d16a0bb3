// What is written among what is not: digits, each with its pieces, in the order of reading. The twin
// of data/images/finding.py.

import { components, cut, grown, mapped, maskOf, percentile, sumOf, within } from "./arrays.js";

const INKED = 0.35; // of a digit's usual density: where its strokes end
const [SIZE, PIXELS] = [0.012, 5]; // of the longer side, and pixels: the smallest digit
const [DUST, FULL] = [0.03, 0.72]; // of the longer side: dust, if it fills so much of its box
const PIECE = 0.12; // of a digit's height: smaller pieces of it do not count
const FAINTER = 0.55; // of a digit's usual density: less is a shadow
const ANOTHER = 0.45; // of the largest's height: another digit
const MASS = 0.12; // of the largest's ink: another digit
// The width of an edge: pixels that any may have, and shares of a digit's extent, of faint ink and
// what is added for ink that takes all light.
const [SOFTEST, SOFT, BLUR] = [5, 0.02, 0.2];
const [NEAR, BESIDE] = [0.25, 0.12]; // of its height: gaps inside a digit, above and beside

/**
 * One digit's ink, or a part of it.
 * @typedef {{labels: number[], top: number, bottom: number, left: number, right: number,
 *   area: number, mass: number, mask: Picture}} Found
 */

export const extentOf = ({ top, bottom, left, right }) => Math.max(bottom - top, right - left);

/**
 * Finds what may be digits.
 *
 * @param {Picture} density how much ink there is
 * @param {Picture} written a mask of where it counts
 * @param {number} dust up to this share of the longer side, what is round and has no gaps is dust
 * @returns {Found[]} in lines from the top, each line from the left
 */
export function findDigits(density, written, dust = DUST) {
  const longest = Math.max(density.width, density.height);
  const all = partsOf(density, written);
  const [heaviest] = all.parts.filter((part) => isLarge(part, longest, dust));
  if (!heaviest) return [];
  // Shadows and smears are fainter than strokes: measured at the heaviest, gone in all.
  const usual = percentile(
    density.values.filter((_, i) => all.labels[i] === heaviest.labels[0]), 85);
  const { labels, parts } = partsOf(density, maskOf(density, (value, i) =>
    written.values[i] && value > INKED * usual));
  const large = parts.filter((part) => isLarge(part, longest, dust));
  const found = groupsOf(parts, wholeOf(large, density))
    .map((group) => together(group, labels, density))
    .filter((digit) => !isShadow(density, digit));
  const largest = found.reduce((most, digit) => (digit.mass > most.mass ? digit : most), found[0]);
  return inOrder(found.filter((digit) => counts(digit, largest)));
}

/** What hangs together, the heaviest first. */
function partsOf(density, mask) {
  const { width, height } = density;
  const { labels, count } = components(mask);
  const parts = Array.from({ length: count }, (_, n) =>
    ({ labels: [n + 1], top: height, bottom: 0, left: width, right: 0, area: 0, mass: 0 }));
  labels.forEach((label, i) => {
    if (!label) return;
    const part = parts[label - 1];
    const [y, x] = [Math.floor(i / width), i % width];
    part.top = Math.min(part.top, y);
    part.bottom = Math.max(part.bottom, y + 1);
    part.left = Math.min(part.left, x);
    part.right = Math.max(part.right, x + 1);
    part.area += 1;
    part.mass += density.values[i];
  });
  return { labels, parts: parts.sort((a, b) => b.mass - a.mass) };
}

/** Whether it is no dust. */
function isLarge(part, longest, dust) {
  const [height, width] = [part.bottom - part.top, part.right - part.left];
  const extent = Math.max(height, width);
  const isFull = part.area > FULL * height * width;
  const isRound = 2 * Math.min(height, width) > extent;
  return extent >= Math.min(PIXELS, longest / 8) && extent >= SIZE * longest
    && !(isFull && isRound && extent < dust * longest);
}

/** Without what comes in over the edge, if anything of its size is whole. */
function wholeOf(parts, { width, height }) {
  const isOutside = ({ top, bottom, left, right }) =>
    top === 0 || left === 0 || bottom === height || right === width;
  const [outside, inside] = [parts.filter(isOutside), parts.filter((part) => !isOutside(part))];
  if (!inside.length || !outside.length) return parts;
  const longest = (some) => Math.max(...some.map(extentOf));
  // Many times larger things at the edge are hands, shadows and tables.
  return longest(inside) > 0.2 * longest(outside) ? inside : parts;
}

/** The parts of each digit: a large one, and what is near enough to belong to it. */
function groupsOf(parts, large) {
  const groups = [];
  for (const part of large.slice(0, 60)) {
    const home = groups.find((group) => belongs(part, group));
    if (home) home.push(part);
    else groups.push([part]);
  }
  for (const part of parts.slice(0, 200)) {
    if (groups.some((group) => group.includes(part))) continue;
    groups.find((group) => belongs(part, group))?.push(part);
  }
  return groups;
}

/** Whether a part is a piece of the digit that a group of parts is. */
function belongs(part, group) {
  const { top, bottom, left, right } = around(group);
  const size = Math.max(bottom - top, right - left);
  const [height, width] = [part.bottom - part.top, part.right - part.left];
  if (Math.max(height, width) < PIECE * size) return false;
  if (part.mass / part.area < (FAINTER * group[0].mass) / group[0].area) return false;
  const below = Math.max(part.top - bottom, top - part.bottom);
  const beside = Math.max(part.left - right, left - part.right);
  const common = Math.min(right, part.right) - Math.max(left, part.left);
  if (common > 0.5 * Math.min(width, right - left)) return below < NEAR * size;
  return height < 0.5 * (bottom - top) && below < 0 && beside < BESIDE * size;
}

const around = (parts) => ({
  top: Math.min(...parts.map(({ top }) => top)),
  bottom: Math.max(...parts.map(({ bottom }) => bottom)),
  left: Math.min(...parts.map(({ left }) => left)),
  right: Math.max(...parts.map(({ right }) => right)),
});

function together(parts, labels, density) {
  const names = new Set(parts.flatMap((part) => part.labels));
  return {
    ...around(parts),
    area: sumOf(parts.map(({ area }) => area)),
    mass: sumOf(parts.map(({ mass }) => mass)),
    mask: maskOf(density, (_, i) => names.has(labels[i])),
  };
}

/** Whether its edges are too soft for something so faint to be a stroke out of focus. */
function isShadow(density, digit) {
  const { width, height, values: near } = padded(density, digit);
  const mask = padded(digit.mask, digit);
  const usual = percentile(near.filter((_, i) => mask.values[i]), 85);
  const slope = (low, high, at, step) => (near[high ? at + step : at] - near[low ? at - step : at])
    / (low + high);
  const steepness = mapped({ width, height, values: near }, (_, i) => {
    const [y, x] = [Math.floor(i / width), i % width];
    return Math.hypot(slope(Number(y > 0), Number(y < height - 1), i, width),
      slope(Number(x > 0), Number(x < width - 1), i, 1));
  });
  const edge = usual / percentile(within(steepness, grown(mask, 2)), 90);
  return edge > SOFTEST && edge > (SOFT + BLUR * usual) * extentOf(digit);
}

/** What is around a digit, with a margin of 3 pixels, empty where there are none. */
function padded(picture, { top, bottom, left, right }) {
  const [width, height] = [right - left + 6, bottom - top + 6];
  const values = new picture.values.constructor(width * height);
  const part = cut(picture, { top: top - 3, bottom: bottom + 3, left: left - 3, right: right + 3 });
  const [x, y] = [Math.max(0, 3 - left), Math.max(0, 3 - top)];
  for (let row = 0; row < part.height; row++) {
    const line = part.values.subarray(row * part.width, (row + 1) * part.width);
    values.set(line, (y + row) * width + x);
  }
  return { width, height, values };
}

function counts(digit, largest) {
  return digit.mass >= MASS * largest.mass && extentOf(digit) >= ANOTHER * extentOf(largest)
    && digit.mass / digit.area >= (FAINTER * largest.mass) / largest.area;
}

/** Lines from the top, each from the left. */
function inOrder(digits) {
  const lines = [];
  for (const digit of [...digits].sort((a, b) => a.top + a.bottom - b.top - b.bottom)) {
    const middle = (digit.top + digit.bottom) / 2;
    const line = lines.at(-1);
    if (line?.some(({ top, bottom }) => top < middle && middle < bottom)) line.push(digit);
    else lines.push([digit]);
  }
  return lines.flatMap((line) => line.sort((a, b) => a.left + a.right - b.left - b.right));
}
