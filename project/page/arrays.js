// Small operations on pictures: resizing, blurring, dilating, labelling. The twin of
// data/images/arrays.py, Pillow's filters and rounding included.

/**
 * Values of a picture's pixels, row by row; a mask has 0 and 1 in a Uint8Array.
 * @typedef {{width: number, height: number, values: Float32Array | Uint8Array}} Picture
 */

/** As Python and NumPy round. */
export function roundHalfEven(x) {
  const floor = Math.floor(x);
  if (x - floor !== 0.5) return Math.round(x);
  return floor % 2 ? floor + 1 : floor;
}

/** A picture of the same size, each value made of the old one and its position. */
export function mapped({ width, height, values }, make, Kind = values.constructor) {
  const made = new Kind(values.length);
  for (let i = 0; i < made.length; i++) made[i] = make(values[i], i);
  return { width, height, values: made };
}

/** The mask of the pixels of which something is true. */
export const maskOf = (picture, is) => mapped(picture, is, Uint8Array);

export function sumOf(values) {
  let sum = 0;
  for (let i = 0; i < values.length; i++) sum += values[i];
  return sum;
}

export const meanOf = (values) => sumOf(values) / values.length;

/** The values of the pixels that a mask has. */
export function within({ values }, mask) {
  const found = new values.constructor(sumOf(mask.values));
  for (let i = 0, n = 0; i < values.length; i++) if (mask.values[i]) found[n++] = values[i];
  return found;
}

/** [smallest, largest] */
export function extremes(values) {
  let [low, high] = [Infinity, -Infinity];
  for (let i = 0; i < values.length; i++) {
    if (values[i] < low) low = values[i];
    if (values[i] > high) high = values[i];
  }
  return [low, high];
}

/** Below it lie so many of a hundred values; between two of them in proportion. */
export function percentile(values, share) {
  const place = (share / 100) * (values.length - 1);
  const low = Math.floor(place);
  const parted = partedAt(new Float32Array(values), low);
  const next = low + 1 < parted.length ? extremes(parted.subarray(low + 1))[0] : parted[low];
  return parted[low] + (place - low) * (next - parted[low]);
}

/** The values so ordered that the one at `k` has none above it before it, none below it behind. */
function partedAt(values, k) {
  let [first, last] = [0, values.length - 1];
  while (first < last) {
    const pivot = values[k];
    let [i, j] = [first, last];
    while (i <= j) {
      while (values[i] < pivot) i += 1;
      while (pivot < values[j]) j -= 1;
      if (i <= j) {
        const value = values[i];
        values[i++] = values[j];
        values[j--] = value;
      }
    }
    if (j < k) first = i;
    if (k < i) last = j;
  }
  return values;
}

export const median = (values) => percentile(values, 50);

/** The values along the border, the corners twice. */
export function border({ width, height, values }) {
  const found = [...values.subarray(0, width), ...values.subarray((height - 1) * width)];
  for (let start = 0; start < values.length; start += width) {
    found.push(values[start], values[start + width - 1]);
  }
  return found;
}

export function transposed({ width, height, values }) {
  const turned = new values.constructor(values.length);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) turned[x * height + y] = values[y * width + x];
  }
  return { width: height, height: width, values: turned };
}

/** A part of a picture, from `top` and `left` up to `bottom` and `right`, as far as there is any. */
export function cut({ width, height, values }, { top, bottom, left, right }) {
  [top, left] = [Math.max(top, 0), Math.max(left, 0)];
  [bottom, right] = [Math.min(bottom, height), Math.min(right, width)];
  const part = new values.constructor((bottom - top) * (right - left));
  for (let y = top; y < bottom; y++) {
    part.set(values.subarray(y * width + left, y * width + right), (y - top) * (right - left));
  }
  return { width: right - left, height: bottom - top, values: part };
}

/** Where a mask is set: the box around it; null where it is empty. */
export function boxOf({ width, height, values }) {
  let [top, bottom, left, right] = [height, 0, width, 0];
  for (let i = 0; i < values.length; i++) {
    if (!values[i]) continue;
    const [y, x] = [Math.floor(i / width), i % width];
    if (y < top) top = y;
    bottom = y + 1;
    if (x < left) left = x;
    if (x >= right) right = x + 1;
  }
  return bottom ? { top, bottom, left, right } : null;
}

export const box = { reach: 0.5, weight: (x) => Number(x > -0.5 && x <= 0.5) };
export const bilinear = { reach: 1, weight: (x) => Math.max(0, 1 - Math.abs(x)) };

/** A picture of another size, by Pillow's filters, which grow where it is made smaller. */
export function resized(picture, width, height, filter = height < picture.height ? box : bilinear) {
  const narrow = resizedRows(picture, width, filter);
  return transposed(resizedRows(transposed(narrow), height, filter));
}

function resizedRows({ width, height, values }, to, filter) {
  if (to === width) return { width, height, values };
  const made = new values.constructor(to * height);
  taps(width, to, filter).forEach(({ first, weights }, x) => {
    for (let y = 0; y < height; y++) {
      const start = y * width + first;
      let sum = 0;
      for (let k = 0; k < weights.length; k++) sum += weights[k] * values[start + k];
      made[y * to + x] = sum;
    }
  });
  return { width: to, height, values: made };
}

/** Which values make each new one, and by which weights. */
function taps(from, to, { reach, weight }) {
  const scale = from / to;
  const stretch = Math.max(scale, 1);
  return Array.from({ length: to }, (_, i) => {
    const centre = (i + 0.5) * scale;
    const first = Math.max(0, Math.trunc(centre - reach * stretch + 0.5));
    const last = Math.min(from, Math.trunc(centre + reach * stretch + 0.5));
    const weights = Array.from({ length: last - first }, (_, k) =>
      weight((first + k - centre + 0.5) / stretch));
    const sum = sumOf(weights);
    return { first, weights: weights.map((each) => each / sum) };
  });
}

/** A picture of at most `longest` pixels in each direction, its proportions kept. */
export function reduced(picture, longest) {
  const scale = longest / Math.max(picture.width, picture.height);
  if (scale >= 1) return picture;
  const [width, height] = [picture.width, picture.height].map((n) =>
    Math.max(1, roundHalfEven(scale * n)));
  return resized(picture, width, height);
}

/** Means over squares of `2 * radius + 1` pixels, at the edges of what there is of them. */
export function blurred(picture, radius) {
  if (radius < 1) return picture;
  return transposed(blurredRows(transposed(blurredRows(picture, radius)), radius));
}

function blurredRows({ width, height, values }, radius) {
  const means = new Float32Array(values.length);
  const sums = new Float64Array(width + 1);
  for (let start = 0; start < values.length; start += width) {
    for (let x = 0; x < width; x++) sums[x + 1] = sums[x] + values[start + x];
    for (let x = 0; x < width; x++) {
      const [low, high] = [Math.max(x - radius, 0), Math.min(x + radius + 1, width)];
      means[start + x] = (sums[high] - sums[low]) / (high - low);
    }
  }
  return { width, height, values: means };
}

/** The largest value from `before` pixels to the left to `after` pixels to the right. */
export function dilatedRows({ width, height, values }, before, after) {
  const largest = new values.constructor(values.length);
  const line = new values.constructor(width + before + after);
  const [lowest] = extremes(values);
  for (let start = 0; start < values.length; start += width) {
    line.fill(lowest);
    line.set(values.subarray(start, start + width), before);
    // Windows of 1, 2, 4 pixels, and two that overlap for what is left.
    let [length, window] = [line.length, 1];
    for (; 2 * window <= before + after + 1; window *= 2) {
      length -= window;
      for (let x = 0; x < length; x++) if (line[x + window] > line[x]) line[x] = line[x + window];
    }
    const shift = before + after + 1 - window;
    for (let x = 0; x < width; x++) largest[start + x] = Math.max(line[x], line[x + shift]);
  }
  return { width, height, values: largest };
}

export const dilatedColumns = (picture, before, after) =>
  transposed(dilatedRows(transposed(picture), before, after));

/** The largest value in squares of `2 * radius + 1` pixels. */
export const grown = (picture, radius) =>
  dilatedColumns(dilatedRows(picture, radius, radius), radius, radius);

/** The smallest value in squares of `2 * radius + 1` pixels. */
export function shrunk(picture, radius) {
  const negative = (each) => mapped(each, picture.values instanceof Uint8Array
    ? (value) => 1 - value : (value) => -value);
  return negative(grown(negative(picture), radius));
}

/** For each pixel that is set, how many are set in a row with it; else 0. */
export function runLengths({ width, height, values }) {
  const lengths = new Int32Array(values.length);
  for (let start = 0; start < values.length; start += width) {
    for (let x = 0; x < width; x++) {
      let end = x;
      while (end < width && values[start + end]) end += 1;
      lengths.fill(end - x, start + x, start + end);
      x = end;
    }
  }
  return { width, height, values: lengths };
}

/**
 * Labels what hangs together, by edges and corners, in the order of reading.
 * @returns {{labels: Int32Array, count: number}} 0 for what is not set, else from 1 to the count
 */
export function components({ width, height, values }) {
  const labels = new Int32Array(values.length);
  const open = new Int32Array(values.length);
  let count = 0;
  for (let start = 0; start < values.length; start++) {
    if (!values[start] || labels[start]) continue;
    count += 1;
    labels[start] = count;
    open[0] = start;
    for (let left = 1; left > 0;) {
      const i = open[--left];
      const [row, column] = [Math.floor(i / width), i % width];
      for (let y = Math.max(row - 1, 0); y <= Math.min(row + 1, height - 1); y++) {
        for (let x = Math.max(column - 1, 0); x <= Math.min(column + 1, width - 1); x++) {
          const next = y * width + x;
          if (!values[next] || labels[next]) continue;
          labels[next] = count;
          open[left++] = next;
        }
      }
    }
  }
  return { labels, count };
}
