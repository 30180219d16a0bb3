// Brings a drawing or a picture into the shape of MNIST's own; `centred` is the twin of
// data/images/centre.py, rounding and single precision included, and a test compares the two.

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
  const ink = inkOf(light, background(light, width, height), extremes(light)[1]);
  return centred(ink, width, height);
}

/**
 * Lays ink where MNIST has it: scaled to fit 20x20 pixels, its centre of mass in the middle of 28x28.
 *
 * @param {Float32Array} ink 0 on paper, somewhere above 0
 */
export function centred(ink, width, height) {
  return framed(...shrunk(...cut(ink, width, inkBox(ink, width, height))));
}

/** The same picture with light ink on dark, whichever it was; null where all of it is the same. */
function lightOnDark(grey, width, height) {
  const picture = new Float32Array(grey);
  const [low, high] = extremes(picture);
  if (!(high > low)) return null;
  const isDark = background(picture, width, height) > low + (high - low) / 2;
  if (isDark) for (let i = 0; i < picture.length; i++) picture[i] = 255 - picture[i];
  return picture;
}

/** Grey of RGBA pixels, as Pillow mixes it; what is transparent counts as background. */
export function greyOf(rgba) {
  const count = rgba.length / 4;
  const grey = new Float32Array(count);
  let [seen, all] = [0, 0];
  for (let i = 0; i < count; i++) {
    const [r, g, b, alpha] = rgba.subarray(4 * i, 4 * i + 4);
    grey[i] = (r * 19595 + g * 38470 + b * 7471 + 0x8000) >> 16;
    seen += (grey[i] * alpha) / 255;
    all += alpha / 255;
  }
  // Dark ink lies on white, light ink on black.
  const ground = seen < 127.5 * all ? 255 : 0;
  return grey.map((value, i) => ground + (rgba[4 * i + 3] / 255) * (value - ground));
}

function extremes(values) {
  let [low, high] = [Infinity, -Infinity];
  for (let i = 0; i < values.length; i++) {
    if (values[i] < low) low = values[i];
    if (values[i] > high) high = values[i];
  }
  return [low, high];
}

/** The grey value that is usual along the border. */
function background(grey, width, height) {
  const border = [...grey.subarray(0, width), ...grey.subarray((height - 1) * width)];
  for (let row = 0; row < height; row++) {
    border.push(grey[row * width], grey[(row + 1) * width - 1]);
  }
  border.sort((a, b) => a - b);
  const middle = border.length / 2;
  return (border[middle - 1] + border[middle]) / 2;
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

function inkBox(ink, width, height) {
  let [top, bottom, left, right] = [height, 0, width, 0];
  for (let row = 0; row < height; row++) {
    for (let column = 0; column < width; column++) {
      if (ink[row * width + column] > 0) {
        top = Math.min(top, row);
        bottom = row + 1;
        left = Math.min(left, column);
        right = Math.max(right, column + 1);
      }
    }
  }
  return { top, bottom, left, right };
}

function cut(values, width, { top, bottom, left, right }) {
  const part = new Float32Array((bottom - top) * (right - left));
  for (let row = top; row < bottom; row++) {
    const from = values.subarray(row * width + left, row * width + right);
    part.set(from, (row - top) * (right - left));
  }
  return [part, right - left, bottom - top];
}

function shrunk(ink, width, height) {
  const scale = BOX / Math.max(width, height);
  const [w, h] = [width, height].map((n) => Math.max(1, roundHalfEven(scale * n)));
  const small = resizeRows(resizeColumns(ink, width, height, w), w, height, h);
  const most = extremes(small)[1]; // thin strokes fade when made smaller
  return [small.map((value) => Math.min(Math.max(f32(value / most), 0), 1)), w, h];
}

function framed(small, width, height) {
  const [rows, columns] = [new Float64Array(height), new Float64Array(width)];
  small.forEach((value, i) => {
    rows[Math.floor(i / width)] += value;
    columns[i % width] += value;
  });
  const [top, left] = [offset(rows), offset(columns)];
  const pixels = new Uint8Array(SIZE * SIZE);
  small.forEach((value, i) => {
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

/** As Python and NumPy round. */
function roundHalfEven(x) {
  const floor = Math.floor(x);
  if (x - floor !== 0.5) return Math.round(x);
  return floor % 2 ? floor + 1 : floor;
}

/** Which inputs make each output, by Pillow's bilinear filter with its support scaled. */
function filters(from, to) {
  const scale = from / to;
  const support = Math.max(scale, 1);
  return Array.from({ length: to }, (_, i) => {
    const centre = (i + 0.5) * scale;
    const first = Math.max(0, Math.trunc(centre - support + 0.5));
    const last = Math.min(from, Math.trunc(centre + support + 0.5));
    const weights = Array.from({ length: last - first }, (_, k) =>
      Math.max(0, 1 - Math.abs((first + k - centre + 0.5) / support)),
    );
    const sum = weights.reduce((a, b) => a + b);
    return { first, weights: weights.map((weight) => weight / sum) };
  });
}

function resizeColumns(values, width, height, to) {
  if (to === width) return values;
  const all = filters(width, to);
  return Float32Array.from({ length: to * height }, (_, i) => {
    const { first, weights } = all[i % to];
    const start = Math.floor(i / to) * width + first;
    return weights.reduce((sum, weight, k) => sum + weight * values[start + k], 0);
  });
}

function resizeRows(values, width, height, to) {
  if (to === height) return values;
  const all = filters(height, to);
  return Float32Array.from({ length: width * to }, (_, i) => {
    const { first, weights } = all[Math.floor(i / width)];
    const start = first * width + (i % width);
    return weights.reduce((sum, weight, k) => sum + weight * values[start + k * width], 0);
  });
}
