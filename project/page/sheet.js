// The sheet of paper in a picture that also shows what it lies on: the twin of data/images/sheet.py.

import { border, components, extremes, grown, mapped, maskOf, meanOf, median, reduced, resized, shrunk,
  sumOf, within } from "./arrays.js";

const CELLS = 160; // of the longer side
const BRIGHTER = 50; // of 255: than the table
const SHARE = 0.15; // of the picture, at least
const LARGE = 0.45; // of the picture: more than a digit fills
const COVERED = 0.85; // of the sheet is not ink
const STRAIGHT = 0.93; // of its convex hull, at least
const FRAME = 0.6; // of the picture's border is table
const MARGIN = 2; // cells that shadow and thickness of its edge may take

/** Where the paper is: a mask; everywhere, unless a bright sheet lies on something dark. */
export function findSheet(grey) {
  const sheet = Math.max(grey.width, grey.height) > CELLS && sheetOf(reduced(grey, CELLS));
  if (!sheet) return maskOf(grey, () => true);
  const inner = mapped(shrunk(sheet, MARGIN), (value) => value, Float32Array);
  return maskOf(resized(inner, grey.width, grey.height), (share) => share > 0.5);
}

function sheetOf(cells) {
  const level = otsu(cells.values);
  const bright = maskOf(cells, (value) => value > level);
  const dark = inverse(bright);
  const apart = meanOf(within(cells, bright)) - meanOf(within(cells, dark));
  if (!(apart >= BRIGHTER) || meanOf(border(dark)) < FRAME) return null;
  const largest = largestPart(bright);
  const sheet = filled(largest);
  const size = sumOf(sheet.values);
  if (meanOf(sheet.values) < SHARE || sumOf(largest.values) < COVERED * size) return null;
  if (size < STRAIGHT * hullArea(sheet) || !hasCorners(sheet)) return null;
  return step(cells, sheet) < BRIGHTER / 2 ? null : sheet;
}

const inverse = (mask) => maskOf(mask, (value) => !value);

/** The level that parts the values into two groups with the least variance (Otsu 1979). */
function otsu(values, bins = 128) {
  const [low, high] = extremes(values);
  const counts = new Float64Array(bins);
  for (const value of values) {
    counts[Math.min(Math.floor(((value - low) / (high - low)) * bins), bins - 1)] += 1;
  }
  const middle = (i) => low + ((i + 0.5) / bins) * (high - low);
  const all = counts.reduce((sum, count, i) => sum + count * middle(i), 0);
  let [below, sum, most, best] = [0, 0, -1, 0];
  counts.forEach((count, i) => {
    below += count;
    sum += count * middle(i);
    const above = values.length - below;
    const apart = sum / Math.max(below, 1) - (all - sum) / Math.max(above, 1);
    const parted = below * above * apart ** 2;
    if (parted > most) [most, best] = [parted, i];
  });
  return middle(best);
}

function largestPart(mask) {
  const { labels, count } = components(mask);
  const sizes = new Int32Array(count + 1);
  for (const label of labels) if (label) sizes[label] += 1;
  const largest = sizes.indexOf(extremes(sizes)[1]);
  return maskOf(mask, (_, i) => labels[i] === largest);
}

/** With its holes. */
function filled({ width, height, values }) {
  const wide = { width: width + 2, height: height + 2, values: null };
  wide.values = new Uint8Array(wide.width * wide.height).fill(1);
  const place = (i) => (Math.floor(i / width) + 1) * wide.width + (i % width) + 1;
  values.forEach((value, i) => (wide.values[place(i)] = 1 - value));
  const { labels } = components(wide);
  return maskOf({ width, height, values }, (_, i) => labels[place(i)] !== labels[0]);
}

/** By how much the picture grows darker where the sheet ends, which a vignette does slowly. */
function step(cells, sheet) {
  const ring = (outer, inner) => maskOf(outer, (value, i) => value && !inner.values[i]);
  const inside = ring(shrunk(sheet, 1), shrunk(sheet, 3));
  const outside = ring(grown(sheet, 3), grown(sheet, 1));
  return median(within(cells, inside)) - median(within(cells, outside));
}

/** Whether it is more like a parallelogram than like an ellipse, or larger than a digit. */
function hasCorners(mask) {
  const places = placesOf(mask);
  const [xs, ys] = [0, 1].map((axis) => places.map((place) => place[axis]));
  const [meanX, meanY] = [meanOf(xs), meanOf(ys)];
  const spread = (one, other) => sumOf(places.map((place) => one(place) * other(place)))
    / (places.length - 1);
  const [x, y] = [([x]) => x - meanX, ([, y]) => y - meanY];
  const determinant = spread(x, x) * spread(y, y) - spread(x, y) ** 2;
  // 12 for every parallelogram, 12.57 for every ellipse.
  return places.length < 12.3 * Math.sqrt(determinant) || meanOf(mask.values) > LARGE;
}

/** [x, y] of the pixels that are set. */
function placesOf({ width, values }) {
  const places = [];
  values.forEach((value, i) => value && places.push([i % width, Math.floor(i / width)]));
  return places;
}

/** The area of the smallest convex shape around it: what lies inside of it in all directions. */
function hullArea(mask, directions = 48) {
  const places = placesOf(mask);
  const inside = new Uint8Array(mask.values.length).fill(1);
  for (let n = 0; n < directions; n++) {
    const [across, down] = [Math.cos, Math.sin].map((f) => f((n * Math.PI) / directions));
    const [low, high] = extremes(places.map(([x, y]) => x * across + y * down));
    inside.forEach((_, i) => {
      const along = (i % mask.width) * across + Math.floor(i / mask.width) * down;
      if (along < low - 1e-6 || along > high + 1e-6) inside[i] = 0;
    });
  }
  return sumOf(inside);
}
