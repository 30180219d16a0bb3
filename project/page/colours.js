// Numbers as colours, in the light and in the dark.

const PALETTES = {
  light: { below: [[12, 58, 112], [60, 138, 206]], zero: [244, 241, 234],
    above: [[232, 118, 44], [128, 34, 6]], ink: [27, 27, 31] },
  dark: { below: [[150, 208, 255], [40, 112, 190]], zero: [24, 26, 32],
    above: [[214, 112, 30], [255, 214, 140]], ink: [246, 244, 238] },
};
const STEPS = 255;

const inTheDark = matchMedia("(prefers-color-scheme: dark)");
let palettes = tablesOf(inTheDark);

/** Calls back when the page turns dark or light. */
export function onThemeChange(callback) {
  inTheDark.addEventListener("change", () => {
    palettes = tablesOf(inTheDark);
    callback();
  });
}

/** A colour of the style sheet. */
export function styled(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

/**
 * Paints values into a canvas of as many pixels; the style sheet enlarges it.
 *
 * @param {HTMLCanvasElement} canvas
 * @param {ArrayLike<number>} values row by row
 * @param {number} width of a row
 * @param {number} low what is painted as least
 * @param {number} high as most
 * @param {"signed" | "ink"} kind blue over paper to orange, or paper to ink
 */
export function paint(canvas, values, width, low, high, kind = "signed") {
  const height = values.length / width;
  if (canvas.width !== width || canvas.height !== height) {
    [canvas.width, canvas.height] = [width, height];
  }
  const context = canvas.getContext("2d");
  const image = context.createImageData(width, height);
  const pixels = new Uint32Array(image.data.buffer);
  const factor = STEPS / (high - low);
  for (let i = 0; i < values.length; i++) {
    const step = Math.min(Math.max(Math.round((values[i] - low) * factor), 0), STEPS);
    pixels[i] = palettes[kind][step];
  }
  context.putImageData(image, 0, 0);
}

/** The colour of a value between -most and most, for style sheets. */
export function colourOf(value, most) {
  const step = Math.round(((value / most + 1) / 2) * STEPS);
  const packed = palettes.signed[Math.min(Math.max(step, 0), STEPS)];
  return `rgb(${packed & 255} ${(packed >> 8) & 255} ${(packed >> 16) & 255})`;
}

function tablesOf({ matches }) {
  const { below, zero, above, ink } = PALETTES[matches ? "dark" : "light"];
  return { signed: ramp([...below, zero, ...above]), ink: ramp([zero, ink]) };
}

function ramp(stops) {
  return Uint32Array.from({ length: STEPS + 1 }, (_, i) => {
    const at = (i / STEPS) * (stops.length - 1);
    const stop = Math.min(Math.floor(at), stops.length - 2);
    const [r, g, b] = stops[stop].map((c, k) => c + (at - stop) * (stops[stop + 1][k] - c));
    return ((255 << 24) | (b << 16) | (g << 8) | r) >>> 0;
  });
}
