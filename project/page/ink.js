// How much ink lies on each pixel, whatever the light, the paper and the colours are: the twin of
// data/images/ink.py.

import { blurred, border, cut, extremes, grown, mapped, median, percentile, reduced, resized,
  roundHalfEven, shrunk, within } from "./arrays.js";

const CELLS = 48; // of the longer side, where light is looked at
const WINDOW = 0.3; // of the longer side: what is usual in it is paper
const STROKE = 0.16; // of the shorter side: the widest stroke where light is uneven
const EVEN = 0.12; // of the contrast: how much the border may differ, and from the rest
const [LEAST, SIGMAS] = [0.05, 4.5]; // of ink: this share of the light, so many deviations of noise
const DARKEST = 16; // of 255: light that a camera adds of itself

/**
 * Tells ink from paper.
 *
 * @param {Picture[]} picture its 1 or 3 colours, 0 to 255
 * @param {Picture} sheet a mask of where the paper is
 * @returns {{density: Picture, noise: number, isDark: boolean, threshold: number}} 0 on paper, 1
 *   where all light is gone; its deviation on paper; and below the threshold is paper
 */
export function findInk(picture, sheet) {
  picture = picture.map((colour) => onSheetOnly(colour, sheet));
  const deviations = picture.map((colour) => {
    const usual = usualOf(colour);
    return mapped(colour, (value, i) => value - usual.values[i], Float32Array);
  });
  const axis = axisOf(deviations);
  const value = along(axis, picture);
  const isDark = isDarker(along(axis, deviations));
  const paper = paperOf(isDark ? value : mapped(value, (each) => -each));
  const gap = mapped(value, (each, i) =>
    (isDark ? paper.values[i] - each : each + paper.values[i]));
  // Of light there is as much as paper returns; chalk adds to what a board does.
  const light = isDark ? paperOf(along(picture.map(() => 1 / picture.length), picture)) : null;
  const share = mapped(gap, (each, i) =>
    each / (light ? Math.max(light.values[i], DARKEST) : 255));
  const level = median(within(share, sheet));
  const density = mapped(share, (each, i) => (sheet.values[i] ? each - level : 0));
  const noise = 1.4826 * median(within(density, sheet).map(Math.abs));
  return { density, noise, isDark, threshold: Math.max(LEAST, SIGMAS * noise) };
}

function onSheetOnly(colour, sheet) {
  const around = median(within(colour, sheet));
  return mapped(colour, (value, i) => (sheet.values[i] ? value : around), Float32Array);
}

const along = (axis, picture) => mapped(picture[0], (_, i) =>
  picture.reduce((sum, { values }, channel) => sum + axis[channel] * values[i], 0));

/** Whether there is more that is darker than usual than what is lighter. */
function isDarker({ values }) {
  let [darker, lighter] = [0, 0];
  for (const value of values) {
    if (value < 0) darker += value * value;
    else lighter += value * value;
  }
  return darker >= lighter;
}

/** Medians of what lies around, or the border's where it is even. */
function usualOf(colour) {
  const level = evenLevel(colour);
  if (level !== null) return mapped(colour, () => level);
  const cells = reduced(colour, CELLS);
  const { width, height } = cells;
  const half = Math.max(1, roundHalfEven((WINDOW / 2) * Math.max(width, height)));
  const [across, down] = [width, height].map((n) => Math.min(half, n - 1));
  const around = new Float32Array((2 * across + 1) * (2 * down + 1));
  const usual = mapped(cells, (_, i) => {
    const [row, column] = [Math.floor(i / width), i % width];
    let n = 0;
    for (let y = row - down; y <= row + down; y++) {
      for (let x = column - across; x <= column + across; x++) around[n++] = beyond(cells, x, y);
    }
    return median(around);
  });
  return resized(usual, colour.width, colour.height);
}

/** A pixel's value; behind the edge a slope runs on, as the picture turned around the edge. */
function beyond(picture, x, y) {
  const edge = Math.min(Math.max(y, 0), picture.height - 1);
  const value = beyondInRow(picture, x, edge);
  return y === edge ? value : 2 * value - beyondInRow(picture, x, 2 * edge - y);
}

function beyondInRow({ width, values }, x, row) {
  const edge = Math.min(Math.max(x, 0), width - 1);
  const value = values[row * width + edge];
  return x === edge ? value : 2 * value - values[row * width + 2 * edge - x];
}

/** What is usual along the border, if light is even there, for small pictures always; or null. */
function evenLevel(value) {
  const level = median(border(value));
  const contrast = percentile(value.values.map((each) => Math.abs(each - level)), 99.5);
  const coarse = border(reduced(value, CELLS));
  const spread = percentile(coarse, 97) - percentile(coarse, 3);
  const difference = Math.max(spread, Math.abs(median(value.values) - level));
  const isSmall = Math.max(value.width, value.height) <= CELLS;
  return difference <= EVEN * contrast || isSmall ? level : null;
}

/** The colour in which ink differs most: weights that add up to 1 by their sizes. */
function axisOf(deviations) {
  const { values: strengths } = mapped(deviations[0], (_, i) =>
    deviations.reduce((sum, { values }) => sum + values[i] * values[i], 0), Float64Array);
  const axis = mainAxis(deviations.map(({ values: one }) => deviations.map(({ values: other }) => {
    let sum = 0;
    for (let i = 0; i < one.length; i++) sum += strengths[i] * one[i] * other[i];
    return sum;
  })));
  const size = axis.reduce((sum, weight) => sum + Math.abs(weight), 0);
  const sign = axis.reduce((sum, weight) => sum + weight) >= 0 ? 1 : -1;
  return axis.map((weight) => (sign * weight) / size);
}

/** The direction that a symmetric matrix stretches most, found by stretching again and again. */
function mainAxis(matrix, times = 200) {
  const strengths = matrix.map((row, i) => row[i]);
  let axis = matrix[strengths.indexOf(extremes(strengths)[1])];
  if (!axis.some(Boolean)) return matrix.map((_, i) => Number(i === matrix.length - 1));
  for (let time = 0; time < times; time++) {
    const longest = Math.max(...axis.map(Math.abs));
    const unit = axis.map((weight) => weight / longest);
    axis = matrix.map((row) => row.reduce((sum, value, i) => sum + value * unit[i], 0));
  }
  return axis;
}

/** What dark ink lies on: in uneven light what is left without narrow dark places. */
function paperOf(value) {
  const level = evenLevel(value);
  if (level !== null) return mapped(value, () => level);
  const half = Math.max(1, roundHalfEven((STROKE * Math.min(value.width, value.height)) / 2));
  // Paper goes on beyond the edge; without it a dark edge would be filled up too.
  const closed = shrunk(grown(widened(value, half), half), half);
  const [top, left] = [half, half];
  const inside = { top, left, bottom: top + value.height, right: left + value.width };
  return blurred(cut(closed, inside), Math.floor(half / 2));
}

/** With a margin in which the edge's values go on. */
function widened({ width, height, values }, margin) {
  const wide = new Float32Array((width + 2 * margin) * (height + 2 * margin));
  for (let y = -margin; y < height + margin; y++) {
    const start = Math.min(Math.max(y, 0), height - 1) * width;
    const line = wide.subarray((y + margin) * (width + 2 * margin)).subarray(0, width + 2 * margin);
    line.fill(values[start]).fill(values[start + width - 1], margin + width);
    line.set(values.subarray(start, start + width), margin);
  }
  return { width: width + 2 * margin, height: height + 2 * margin, values: wide };
}
