// The sheet: draw with mouse, pen, finger or keys; or lay a test digit or a picture on it.

import { SIDE, addLine, enlarged, rasterOf } from "./strokes.js";
import { coloursOf, look } from "./photograph.js";
import { likeMnist } from "./preprocessing.js";
import { paint, styled } from "./colours.js";

const KEY_STEP = 8;
const MOST = 2400; // pixels of a picture's longer side: more take long and show a digit no better

/**
 * What lies on the sheet: strokes; or a picture of it, its 784 pixels, and in words where it is from.
 *
 * `found` are all digits of a picture, of which this is the one at `chosen`; `reason` is why there is
 * no answer, or why it should not be relied on.
 */
const EMPTY = {
  strokes: [], picture: null, digit: null, source: "", found: [], chosen: 0, reason: "",
};

/**
 * A drawing, and all that were before it.
 *
 * `onChange` is called with the 784 pixels that a network gets, null for an empty sheet, and with
 * whether the pen is still down.
 */
export class Pad {
  constructor(canvas, onChange) {
    this.canvas = canvas;
    this.onChange = onChange;
    this.width = 22;
    this.history = [];
    this.drawing = EMPTY;
    this.cursor = { x: SIDE / 2, y: SIDE / 2, isDown: false };
    this.raster = rasterOf(EMPTY);
    this.pointer = null;
    this.isTold = this.isWaiting = false; // of what was drawn in this frame
    this.listen();
    this.resize();
    new ResizeObserver(() => this.resize()).observe(canvas);
  }

  listen() {
    const on = (name, handler) => this.canvas.addEventListener(name, handler);
    on("pointerdown", (event) => this.down(event));
    // Browsers hold a move back until the next frame; its raw twin comes at once, where there is one.
    const isRaw = "onpointerrawupdate" in globalThis;
    on(isRaw ? "pointerrawupdate" : "pointermove", (event) => this.move(event));
    on("pointerup", (event) => this.up(event));
    on("pointercancel", (event) => this.up(event));
    on("keydown", (event) => this.key(event));
    on("blur", () => this.liftKeys());
  }

  down(event) {
    if (event.button !== 0 || this.pointer !== null) return;
    event.preventDefault();
    this.canvas.focus({ preventScroll: true, focusVisible: false });
    this.cursor.isDown = false;
    this.pointer = event.pointerId;
    this.canvas.setPointerCapture(event.pointerId);
    this.begin(...this.place(event));
  }

  move(event) {
    if (event.pointerId !== this.pointer) return;
    // Where the pen was between two frames, too.
    const events = event.getCoalescedEvents?.() ?? [];
    for (const each of events.length ? events : [event]) this.extend(...this.place(each));
    this.tellInTime();
  }

  /** At once, but no more than twice a frame: a mouse may move a thousand times a second. */
  tellInTime() {
    if (this.isTold) {
      this.isWaiting = true;
      return;
    }
    this.isTold = true;
    this.tell(true);
    requestAnimationFrame(() => {
      this.isTold = false;
      if (this.isWaiting) this.tell(true);
    });
  }

  up(event) {
    if (event.pointerId !== this.pointer) return;
    this.pointer = null;
    this.tell(false);
  }

  place(event) {
    const box = this.canvas.getBoundingClientRect();
    const scale = SIDE / box.width;
    return [(event.clientX - box.left) * scale, (event.clientY - box.top) * scale];
  }

  key(event) {
    const { cursor } = this;
    const steps = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    const step = steps[event.key];
    if (event.key === " " && this.pointer === null) {
      cursor.isDown = !cursor.isDown;
      if (cursor.isDown) this.begin(cursor.x, cursor.y);
      else this.tell(false);
    } else if (step) {
      cursor.x = Math.min(Math.max(cursor.x + step[0] * KEY_STEP, 0), SIDE);
      cursor.y = Math.min(Math.max(cursor.y + step[1] * KEY_STEP, 0), SIDE);
      if (cursor.isDown) {
        this.extend(cursor.x, cursor.y);
        this.tell(true);
      }
    } else {
      return;
    }
    event.preventDefault();
    this.show();
  }

  liftKeys() {
    if (this.cursor.isDown) this.tell(false);
    this.cursor.isDown = false;
    this.show();
  }

  begin(x, y) {
    this.history.push(this.drawing);
    const stroke = { width: this.width, points: [x, y] };
    // Nobody draws on top of a test digit or a picture: a clean sheet, and undo brings it back.
    if (this.drawing.picture) this.raster = rasterOf(EMPTY);
    this.drawing = { ...EMPTY, strokes: [...this.drawing.strokes, stroke] };
    addLine(this.raster, x, y, x, y, this.width);
    this.tell(true);
  }

  extend(x, y) {
    const { points } = this.drawing.strokes.at(-1);
    addLine(this.raster, ...points.slice(-2), x, y, this.width);
    points.push(x, y);
  }

  /** Takes the last stroke back, or whatever came last. */
  undo() {
    if (this.history.length) this.lay(this.history.pop());
  }

  clear() {
    if (this.drawing !== EMPTY) this.replace(EMPTY);
  }

  /** Lays a test digit on the sheet: the network gets its pixels as they are. */
  showDigit(pixels, source) {
    this.replace({ ...EMPTY, picture: enlarged(pixels), digit: pixels, source });
  }

  /** Lays one of the digits that were found on a picture on the sheet. */
  showFound(found, chosen, source) {
    const { pixels, strokes, reason } = found[chosen];
    const picture = onSheet(strokes);
    this.replace({ ...EMPTY, picture, digit: pixels, source, found, chosen, reason });
  }

  /** Clears the sheet for a picture on which there is nothing to read. */
  showNothing(reason) {
    this.replace({ ...EMPTY, reason });
  }

  replace(drawing) {
    this.history.push(this.drawing);
    this.lay(drawing);
  }

  lay(drawing) {
    // A stroke that is being drawn is not there any more to go on with.
    this.pointer = null;
    this.cursor.isDown = false;
    this.drawing = drawing;
    this.raster = rasterOf(drawing);
    this.tell(false);
  }

  /** The 784 pixels that a network gets; null for an empty sheet. */
  pixels() {
    return this.drawing.digit ?? likeMnist(this.raster, SIDE, SIDE);
  }

  tell(isDrawing) {
    this.isWaiting = false;
    this.show();
    this.onChange(this.pixels(), isDrawing);
  }

  resize() {
    const side = Math.round(this.canvas.clientWidth * devicePixelRatio);
    if (side) this.canvas.width = this.canvas.height = side;
    this.show();
  }

  show() {
    const context = this.canvas.getContext("2d");
    const scale = this.canvas.width / SIDE;
    context.setTransform(scale, 0, 0, scale, 0, 0);
    context.clearRect(0, 0, SIDE, SIDE);
    if (this.drawing.picture) context.drawImage(this.painted(), 0, 0);
    context.lineCap = context.lineJoin = "round";
    context.strokeStyle = styled("--ink");
    for (const { width, points } of this.drawing.strokes) {
      context.lineWidth = width;
      context.beginPath();
      context.moveTo(points[0], points[1]);
      for (let i = 0; i < points.length; i += 2) context.lineTo(points[i], points[i + 1]);
      context.stroke();
    }
    if (this.canvas.matches(":focus-visible")) this.showCursor(context);
  }

  showCursor(context) {
    context.beginPath();
    context.arc(this.cursor.x, this.cursor.y, this.width / 2, 0, 2 * Math.PI);
    context.lineWidth = 2;
    context.strokeStyle = styled("--accent");
    context.stroke();
  }

  painted() {
    const { canvas } = contextOf(SIDE, SIDE);
    paint(canvas, this.drawing.picture, SIDE, 0, 255, "ink");
    return canvas;
  }
}

function contextOf(width, height) {
  const canvas = Object.assign(document.createElement("canvas"), { width, height });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.imageSmoothingQuality = "high";
  return context;
}

/** The digits that are found on a picture, in the order of reading. */
export function digitsOn(bitmap) {
  const scale = Math.min(1, MOST / Math.max(bitmap.width, bitmap.height));
  const [width, height] = [bitmap.width, bitmap.height].map((n) => Math.ceil(n * scale));
  const context = contextOf(width, height);
  context.drawImage(bitmap, 0, 0, width, height);
  const { data } = context.getImageData(0, 0, width, height);
  return look(coloursOf(data, width, height)).filter(({ pixels }) => pixels);
}

/** Ink as a sheet of its own, as large as fits with some room around. */
function onSheet({ width, height, values }) {
  const from = contextOf(width, height);
  const image = from.createImageData(width, height);
  values.forEach((value, i) => image.data.set([255 * value, 0, 0, 255], 4 * i));
  from.putImageData(image, 0, 0);
  const scale = SIDE / (1.4 * Math.max(width, height));
  const to = contextOf(SIDE, SIDE);
  to.drawImage(from.canvas, (SIDE - scale * width) / 2, (SIDE - scale * height) / 2,
    scale * width, scale * height);
  const pixels = to.getImageData(0, 0, SIDE, SIDE).data;
  return Uint8Array.from({ length: SIDE * SIDE }, (_, i) => pixels[4 * i]);
}
