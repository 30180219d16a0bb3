// Finds the ink of a photographed digit: the paper's light is taken away, and what is no digit.

const CELLS = 14; // of the longer side, where paper is looked for
const REACH = 2; // cells around one that count too
const PAPER = 0.25; // of the pixels there: lighter, or darker around chalk, is paper
const EVEN = 0.2; // of the contrast: how much the border may differ in even light
const FAINTEST = 0.06; // of the paper's light: less is no ink
const NEAR = 0.12; // of the digit's height: so near, a piece belongs to it
const SPECK = 0.02; // of the largest piece's pixels: smaller ones are dust

/**
 * The ink of one digit, without its paper.
 *
 * @param {Float32Array} grey height rows of width values, 0 to 255
 * @returns {{ink: Float32Array, box: object} | null} 0 paper to 255 ink, and where that is; null
 *   where there is none
 */
export function inkOfPhotograph(grey, width, height) {
  const density = densityOf(grey, width, height, isDarkOnLight(grey, width, height));
  const threshold = Math.max(otsu(density), FAINTEST);
  const found = largestThing(density.map((value) => Number(value > threshold)), width, height);
  if (!found) return null;
  const { mask, box } = found;
  const strongest = percentile(density.filter((_, i) => mask[i]), 0.7);
  const ink = density.map((value, i) =>
    isNear(mask, i, width, height) ? 255 * Math.min(value / strongest, 1) : 0);
  return { ink, box };
}

/** Whether what stands out from its neighbourhood most is darker than that. */
function isDarkOnLight(grey, width, height) {
  const usual = paperOf(grey, width, height, 0.5);
  return grey.reduce((sum, value, i) => sum + (usual[i] - value) ** 3, 0) > 0;
}

/** How much darker, or lighter, each pixel is than the paper around it, as a share. */
function densityOf(grey, width, height, isDark) {
  const paper = paperOf(grey, width, height, isDark ? 1 - PAPER : PAPER);
  return grey.map((value, i) => {
    const room = isDark ? paper[i] : 255 - paper[i];
    const gap = isDark ? paper[i] - value : value - paper[i];
    return Math.min(Math.max(gap / Math.max(room, 16), 0), 1);
  });
}

/** The paper's grey at each pixel: of a share of its neighbourhood, between the cells' middles. */
function paperOf(grey, width, height, share) {
  const even = evenPaper(grey, width, height);
  if (even !== null) return new Float32Array(grey.length).fill(even);
  const cell = Math.max(width, height) / CELLS;
  const [columns, rows] = [width, height].map((n) => Math.max(1, Math.round(n / cell)));
  const cells = Float32Array.from({ length: rows * columns }, (_, i) => {
    const [row, column] = [Math.floor(i / columns), i % columns];
    const values = [];
    const [top, bottom] = stretch(row, rows, height);
    const [left, right] = stretch(column, columns, width);
    for (let y = top; y < bottom; y += 3) {
      for (let x = left; x < right; x += 3) values.push(grey[y * width + x]);
    }
    return percentile(values, share);
  });
  return Float32Array.from(grey, (_, i) => {
    const y = ((Math.floor(i / width) + 0.5) / height) * rows - 0.5;
    const x = (((i % width) + 0.5) / width) * columns - 0.5;
    return between(cells, columns, rows, x, y);
  });
}

/** The paper's grey where it is the same all along the border; null where it is not. */
function evenPaper(grey, width, height) {
  const border = grey.filter((_, i) => {
    const [row, column] = [Math.floor(i / width), i % width];
    return row === 0 || column === 0 || row === height - 1 || column === width - 1;
  });
  const contrast = percentile(grey, 0.999) - percentile(grey, 0.001);
  const spread = percentile(border, 0.9) - percentile(border, 0.1);
  return spread < EVEN * contrast ? percentile(border, 0.5) : null;
}

function stretch(cell, count, pixels) {
  const edge = (n) => Math.round((Math.min(Math.max(n, 0), count) * pixels) / count);
  return [edge(cell - REACH), edge(cell + REACH + 1)];
}

function between(cells, columns, rows, x, y) {
  const [left, top] = [Math.floor(x), Math.floor(y)];
  const [dx, dy] = [x - left, y - top];
  const at = (row, column) => cells[Math.min(Math.max(row, 0), rows - 1) * columns
    + Math.min(Math.max(column, 0), columns - 1)];
  return (1 - dy) * ((1 - dx) * at(top, left) + dx * at(top, left + 1))
    + dy * ((1 - dx) * at(top + 1, left) + dx * at(top + 1, left + 1));
}

function percentile(values, share) {
  const sorted = Float32Array.from(values).sort();
  return sorted[Math.min(Math.floor(share * sorted.length), sorted.length - 1)];
}

/** The threshold that parts ink from paper best (Otsu 1979). */
function otsu(density) {
  const counts = new Float64Array(256);
  density.forEach((value) => (counts[Math.round(255 * value)] += 1));
  const all = counts.reduce((sum, count, i) => sum + count * i, 0);
  let [below, sum, best, threshold] = [0, 0, -1, 0];
  counts.forEach((count, i) => {
    below += count;
    sum += count * i;
    const above = density.length - below;
    if (!below || !above) return;
    const parted = below * above * (sum / below - (all - sum) / above) ** 2;
    if (parted > best) [best, threshold] = [parted, i / 255];
  });
  return threshold;
}

/** The largest connected thing with what lies near it, as a mask, and where; null for none. */
function largestThing(mask, width, height) {
  const things = thingsIn(mask, width, height);
  if (!things.length) return null;
  const score = (thing) => thing.pixels.length * (thing.isAtEdge ? 0.2 : 1);
  const digit = things.reduce((best, thing) => (score(thing) > score(best) ? thing : best));
  const room = NEAR * (digit.bottom - digit.top);
  const pieces = things.filter((thing) => thing === digit || (!thing.isAtEdge
    && thing.pixels.length > SPECK * digit.pixels.length
    && thing.left < digit.right + room && thing.right > digit.left - room
    && thing.top < digit.bottom + room && thing.bottom > digit.top - room));
  const kept = new Uint8Array(mask.length);
  for (const { pixels } of pieces) for (const i of pixels) kept[i] = 1;
  return { mask: kept, box: extent(pieces.flatMap(({ pixels }) => pixels), width, height) };
}

function thingsIn(mask, width, height) {
  const seen = new Uint8Array(mask.length);
  const things = [];
  for (let start = 0; start < mask.length; start++) {
    if (!mask[start] || seen[start]) continue;
    const pixels = [start];
    seen[start] = 1;
    for (let n = 0; n < pixels.length; n++) {
      for (const i of around(pixels[n], width, height)) {
        if (mask[i] && !seen[i]) {
          seen[i] = 1;
          pixels.push(i);
        }
      }
    }
    things.push({ pixels, ...extent(pixels, width, height) });
  }
  return things;
}

function extent(pixels, width, height) {
  let [top, bottom, left, right] = [height, 0, width, 0];
  for (const i of pixels) {
    const [row, column] = [Math.floor(i / width), i % width];
    [top, bottom] = [Math.min(top, row), Math.max(bottom, row + 1)];
    [left, right] = [Math.min(left, column), Math.max(right, column + 1)];
  }
  const isAtEdge = top === 0 || left === 0 || bottom === height || right === width;
  return { top, bottom, left, right, isAtEdge };
}

/** A pixel and its neighbours. */
function around(i, width, height) {
  const [row, column] = [Math.floor(i / width), i % width];
  const found = [];
  for (let y = Math.max(row - 1, 0); y <= Math.min(row + 1, height - 1); y++) {
    for (let x = Math.max(column - 1, 0); x <= Math.min(column + 1, width - 1); x++) {
      found.push(y * width + x);
    }
  }
  return found;
}

const isNear = (mask, i, width, height) => around(i, width, height).some((k) => mask[k]);
