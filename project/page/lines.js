// Lines that are printed, not written, and boxes of forms: the twin of data/images/lines.py.
//
// A line's pixels are taken away where they are no thicker than the line: where a stroke crosses or
// runs along it, the stroke stays whole.

import { boxOf, components, cut, dilatedColumns, extremes, mapped, maskOf, meanOf, median, resized,
  roundHalfEven, runLengths, sumOf, transposed, within } from "./arrays.js";

const TILT = 0.1; // of its length: how much a line may rise or fall
const COVERED = 0.65; // of its length: how much of a line must be seen
const THICK = 0.03; // of the shorter side, or thicker pixels are a stroke
const HOLLOW = 0.35; // of a box's area: how much its lines and what is in it may cover
const SMALLEST = 64; // pixels of a picture on which lines are looked for
const COARSE = 200;

/** A mask of written ink, from one of all ink: without the lines of paper and boxes. */
export function withoutLines(mask) {
  if (Math.min(mask.width, mask.height) < SMALLEST) return mask;
  const thickest = Math.max(3, roundHalfEven(THICK * Math.min(mask.width, mask.height)));
  const rest = erased(mask, ...linesOf(mask, thickest, true));
  const { labels, count } = components(rest);
  const sizes = new Int32Array(count + 1);
  for (const label of labels) if (label) sizes[label] += 1;
  const largest = [...sizes.keys()].slice(1).sort((a, b) => sizes[b] - sizes[a]).slice(0, 4);
  return largest.reduce((kept, label) =>
    withoutBox(kept, maskOf(rest, (_, i) => labels[i] === label), thickest), rest);
}

/** Lines along the rows, and along the columns. */
function linesOf(mask, thickest, isWhole) {
  const columns = linesAlong(transposed(mask), thickest, isWhole);
  return [linesAlong(mask, thickest, isWhole), transposed(columns)];
}

/** A mask without a box that a connected part of it may be. */
function withoutBox(mask, part, thickest) {
  const area = boxOf(part);
  const [width, height] = [area.right - area.left, area.bottom - area.top];
  if (Math.min(width, height) < SMALLEST / 2) return mask;
  const inside = cut(part, area);
  if (meanOf(inside.values) > HOLLOW) return mask;
  const [rows, columns] = linesOf(inside, thickest, false);
  if (!encloses(rows) || !encloses(transposed(columns))) return mask;
  const kept = erased(inside, rows, columns);
  return maskOf(mask, (value, i) => {
    const [x, y] = [(i % mask.width) - area.left, Math.floor(i / mask.width) - area.top];
    if (x < 0 || y < 0 || x >= width || y >= height) return value;
    const at = y * width + x;
    return value && (kept.values[at] || !inside.values[at]);
  });
}

/** Whether lines along the rows lie far from one another, with nothing between. */
function encloses({ width, height, values }) {
  const seen = [];
  for (let y = 0; y < height; y++) {
    if (meanOf(values.subarray(y * width, (y + 1) * width)) > COVERED / 4) seen.push(y);
  }
  const gaps = seen.slice(1).map((y, i) => y - seen[i]);
  return Math.max(0, ...gaps) > height / 2;
}

const runsAcross = (mask) => transposed(runLengths(transposed(mask)));

/** Without lines along rows and columns, where it is no thicker across them than they are. */
function erased(mask, rows, columns) {
  const high = thickness(mask, rows, runsAcross);
  const wide = thickness(mask, columns, runLengths);
  const without = (rest, line, runs, most) => {
    const lengths = runs(rest).values;
    return maskOf(rest, (value, i) => value && !(line.values[i] && lengths[i] <= most));
  };
  // What a column is must be measured without the rows that cross it, and the other way round.
  const first = without(mask, rows, runsAcross, high);
  return without(without(first, columns, runLengths, wide), rows, runsAcross, high);
}

/** Of most of a line, and half as much again. */
function thickness(mask, line, runs) {
  const lengths = within(runs(mask), line);
  return lengths.length ? 1.5 * median(lengths) + 1 : 0;
}

/** A mask of lines along the rows, tilted or not; `isWhole` if from edge to edge. */
function linesAlong(mask, thickest, isWhole) {
  const { width, height } = mask;
  const none = maskOf(mask, () => false);
  const scale = Math.max(1, width / COARSE);
  const coarse = shrunkMask(mask, roundHalfEven(width / scale),
    Math.max(8, roundHalfEven(height / scale)));
  const reach = Math.floor(TILT * coarse.width);
  const far = sharpest(coarse, -reach, reach, 1);
  if (far.most < COVERED) return none;
  const [from, to] = [Math.floor((far.shift - 1.5) * scale), Math.ceil((far.shift + 1.5) * scale)];
  const { shift } = sharpest(mask, from, to, 2);
  const rises = risesOf(width, shift);
  const coverage = coverageOf(mask, rises);
  if (isWhole) {
    const ends = Math.max(4, Math.floor(width / 8));
    for (const left of [0, width - ends]) {
      const end = cut(mask, { top: 0, bottom: height, left, right: left + ends });
      coverageOf(end, rises.slice(left, left + ends)).forEach((share, y) => {
        if (!(share > 0.4)) coverage[y] = 0;
      });
    }
  }
  const line = onLines(mask, rises, coverage);
  const lengths = within(runsAcross(mask), line);
  return lengths.length && median(lengths) <= thickest ? line : none;
}

/** What of a mask lies on tilted rows that are covered, or a pixel or two beside, for bends. */
function onLines(mask, rises, coverage) {
  return maskOf(mask, (value, i) => {
    const row = Math.floor(i / mask.width) - rises[i % mask.width];
    return value && [-2, -1, 0, 1, 2].some((by) => coverage[row + by] > COVERED
      && row >= 0 && row < mask.height);
  });
}

/** Smaller; a pixel that is set in part is set. */
function shrunkMask(mask, width, height) {
  const grey = mapped(mask, (value) => value, Float32Array);
  return maskOf(resized(grey, width, height), (share) => share > 0.15);
}

/** By how many pixels lines rise from the left edge to the right, and how much one covers. */
function sharpest(mask, from, to, step) {
  let best = { sharpness: -1 };
  const seen = dilatedColumns(mask, 1, 1);
  for (let shift = from; shift <= to; shift += step) {
    const coverage = coverageIn(seen, risesOf(mask.width, shift));
    const sharpness = sumOf(coverage.map((share) => share ** 4));
    if (sharpness > best.sharpness) best = { shift, most: extremes(coverage)[1], sharpness };
  }
  return best;
}

/** How much of each tilted row is set, of what lies in the picture, with a pixel to spare. */
const coverageOf = (mask, rises) => coverageIn(dilatedColumns(mask, 1, 1), rises);

function coverageIn({ width, height, values }, rises) {
  return Float64Array.from({ length: height }, (_, start) => {
    let [set, inside] = [0, 0];
    for (let x = 0; x < width; x++) {
      const y = start + rises[x];
      if (y < 0 || y >= height) continue;
      inside += 1;
      set += values[y * width + x];
    }
    // What is mostly outside is no line.
    return inside > 0.6 * width ? set / inside : 0;
  });
}

/** How far down a tilted row lies, column by column. */
const risesOf = (width, shift) => Int32Array.from({ length: width }, (_, x) =>
  roundHalfEven(-shift / 2 + x * (shift / Math.max(width - 1, 1))));
