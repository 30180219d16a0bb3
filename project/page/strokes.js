// Strokes as grey values, without a canvas: the same drawing gives the same pixels everywhere.

/** Width and height of the drawing, in its own pixels. */
export const SIDE = 280;

/** A stroke: the pen's width, and where it went, x and y in turns.
 *  @typedef {{width: number, points: number[]}} Stroke */

/**
 * The sheet under a drawing.
 * @param {{strokes: Stroke[], picture: Uint8Array | null}} drawing
 * @returns {Uint8Array} SIDE x SIDE values, 0 paper to 255 ink
 */
export function rasterOf({ strokes, picture }) {
  const raster = picture ? picture.slice() : new Uint8Array(SIDE * SIDE);
  for (const { width, points } of strokes) {
    for (let i = 0; i < points.length; i += 2) {
      const before = Math.max(0, i - 2);
      addLine(raster, points[before], points[before + 1], points[i], points[i + 1], width);
    }
  }
  return raster;
}

/** Inks a straight line with round ends into a raster. */
export function addLine(raster, x0, y0, x1, y1, width) {
  const reach = width / 2 + 1;
  const [left, right] = span(x0, x1, reach);
  const [top, bottom] = span(y0, y1, reach);
  const [dx, dy] = [x1 - x0, y1 - y0];
  const squared = dx * dx + dy * dy || 1;
  for (let y = top; y < bottom; y++) {
    for (let x = left; x < right; x++) {
      const [px, py] = [x + 0.5 - x0, y + 0.5 - y0];
      const along = Math.min(Math.max((px * dx + py * dy) / squared, 0), 1);
      const away = Math.hypot(px - along * dx, py - along * dy);
      const ink = 255 * Math.min(Math.max(width / 2 - away + 0.5, 0), 1);
      const at = y * SIDE + x;
      if (ink > raster[at]) raster[at] = Math.round(ink);
    }
  }
}

function span(a, b, reach) {
  const first = Math.max(0, Math.floor(Math.min(a, b) - reach));
  return [first, Math.min(SIDE, Math.ceil(Math.max(a, b) + reach))];
}

/** A test digit's 28x28 pixels, each as a square of the sheet. */
export function enlarged(pixels) {
  const step = SIDE / 28;
  return Uint8Array.from({ length: SIDE * SIDE }, (_, i) => {
    const [row, column] = [Math.floor(i / SIDE / step), Math.floor((i % SIDE) / step)];
    return pixels[28 * row + column];
  });
}
