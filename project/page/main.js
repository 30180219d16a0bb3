// Puts the page together: what is drawn goes through the networks, and out come pictures.

import { load } from "./numbers.js";
import { run } from "./network.js";
import { fieldsOf } from "./connections.js";
import { Pad, digitsOn } from "./pad.js";
import { onThemeChange } from "./colours.js";
import { UNITS, buildLayers, paintLayers } from "./layers.js";
import { Wires } from "./wires.js";
import { best, buildBars, showAnswer, showFound } from "./answer.js";
import { inspect } from "./inspector.js";
import { buildTable } from "./table.js";
import { aboutOf, accuracyOf, fillRuns, foundIn, testDigit, titleOf } from "./words.js";

const find = (selector) => document.querySelector(selector);
const BLANK = new Uint8Array(784);

/** The page's state, and what shows it. */
class Page {
  constructor({ networks, digits }) {
    this.networks = networks;
    this.digits = digits;
    this.network = networks[0];
    this.pixels = null;
    this.pointed = null;
    this.digit = -1;
    this.isComparing = false;
    this.machine = find("#machine");
    this.wires = new Wires(find("#wires"), this.machine);
    this.buildTabs();
    fillRuns(find("#runs"), networks);
    this.pad = new Pad(find("#pad"), (pixels, isDrawing) => this.see(pixels, isDrawing));
    this.listen();
    this.choose(0);
    this.step(1, () => true);
    new ResizeObserver(() => this.drawWires()).observe(this.machine);
    onThemeChange(() => this.choose(this.networks.indexOf(this.network)));
  }

  // Networks

  buildTabs() {
    find("#networks").replaceChildren(...this.networks.map((network, i) => {
      const tab = document.createElement("button");
      tab.setAttribute("role", "radio");
      tab.innerHTML = "<b></b><span></span><output></output>";
      tab.children[0].textContent = network.name;
      tab.children[1].textContent = accuracyOf(network);
      tab.addEventListener("click", () => this.choose(i));
      tab.addEventListener("keydown", (event) => this.moveTab(event, i));
      return tab;
    }));
  }

  moveTab(event, i) {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    const next = (i + step + this.networks.length) % this.networks.length;
    this.choose(next);
    find("#networks").children[next].focus();
  }

  choose(i) {
    this.network = this.networks[i];
    this.pointed = null; // of another network
    [...find("#networks").children].forEach((tab, k) => {
      tab.setAttribute("aria-checked", k === i);
      tab.tabIndex = k === i ? 0 : -1;
    });
    find("#networks").children[i].scrollIntoView({ block: "nearest", inline: "nearest" });
    document.body.dataset.kind = this.network.kind;
    find("h1").textContent = titleOf(this.network);
    find("#about").textContent = aboutOf(this.network);
    const layers = run(this.network, BLANK);
    buildLayers(find("#layers"), find("[data-layer=input]"), this.network, layers);
    buildBars(find("#bars"), this.network);
    buildTable(find("#table"), this.network);
    this.pad.show();
    this.see(this.pixels, false);
    this.unpoint();
  }

  // What is on the sheet

  see(pixels, isDrawing) {
    this.pixels = pixels;
    this.result = run(this.network, pixels ?? BLANK);
    const shown = pixels && this.result;
    showAnswer(find("#verdict"), find("#bars"), this.network, shown, this.pad.drawing.reason);
    paintLayers(this.machine, this.network, this.result);
    this.tellSource();
    if (this.pointed) this.tell();
    if (!isDrawing) this.speak(shown);
    this.compareSoon();
  }

  /** The other networks' answers, once a frame: they need not be as quick. */
  compareSoon() {
    if (this.isComparing) return;
    this.isComparing = true;
    requestAnimationFrame(() => {
      this.isComparing = false;
      [...find("#networks").children].forEach((tab, i) => {
        const network = this.networks[i];
        const result = this.pixels && run(network, this.pixels);
        tab.lastElementChild.textContent = result ? network.digits[best(result.probabilities)] : "";
      });
    });
  }

  speak(result) {
    const [digit, words] = find("#verdict").children;
    find("#spoken").textContent = result
      ? `It reads ${digit.textContent}, ${words.textContent}.` : `${words.textContent}.`;
  }

  /** Where the digit on the sheet is from, and the others of its picture. */
  tellSource() {
    const { strokes, found, chosen, source } = this.pad.drawing;
    find("#hint").hidden = strokes.length + found.length > 0;
    find("#source").textContent = source;
    const answers = found.map(({ pixels }) =>
      this.network.digits[best(run(this.network, pixels).probabilities)]);
    showFound(find("#found"), answers, chosen, (i) => this.pad.showFound(found, i, source));
  }

  step(by, fits) {
    const count = this.digits.length;
    let next = this.digit;
    for (let tries = 0; tries < count; tries++) {
      next = (next + by + count) % count;
      if (fits(this.digits[next])) break;
    }
    this.digit = next;
    const { pixels, label, isHard } = this.digits[next];
    this.pad.showDigit(pixels, testDigit(next + 1, count, label, isHard));
  }

  /** Reads a picture, and says so meanwhile: a large one takes more than a moment. */
  async read(blob, name = blob.name ?? "the picture") {
    find("#source").textContent = "Reading the picture \u2026";
    this.machine.ariaBusy = "true";
    try {
      const bitmap = await createImageBitmap(blob);
      // The words are to be seen before the work begins.
      await new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
      const found = digitsOn(bitmap);
      if (found.length) this.pad.showFound(found, 0, foundIn(name, found.length));
      else this.pad.showNothing(`No ink is to be seen in ${name}`);
    } catch {
      this.pad.showNothing("This file is no picture that the browser can read");
    } finally {
      this.machine.ariaBusy = "false";
    }
  }

  // What is pointed at

  point(element, event) {
    const { layer, map } = element.dataset;
    const pixel = event && element.matches("button") ? this.pixelAt(element, layer, event) : null;
    if (layer in UNITS) {
      const count = this.result[layer].maps;
      const unit = pixel ? pixel[0] * UNITS[layer] + pixel[1] : this.pointed?.map ?? 0;
      this.pointed = { layer, map: Math.min(unit, count - 1), pixel: null };
    } else {
      this.pointed = { layer, map: Number(map), pixel };
    }
    this.tell();
    this.drawWires();
  }

  pixelAt(element, layer, event) {
    if (layer === "output") return null;
    const canvas = element.querySelector("canvas");
    const box = canvas.getBoundingClientRect();
    const place = (at, start, length, count) =>
      Math.min(Math.max(Math.floor(((at - start) / length) * count), 0), count - 1);
    return [place(event.clientY, box.top, box.height, canvas.height),
      place(event.clientX, box.left, box.width, canvas.width)];
  }

  unpoint() {
    this.pointed = null;
    this.tell();
    this.drawWires();
  }

  fields() {
    if (!this.pointed || this.network.kind === "linear") return null;
    const { layer, map, pixel } = this.pointed;
    const size = this.result[layer]?.size ?? 1;
    const box = pixel
      ? { top: pixel[0], left: pixel[1], height: 1, width: 1 }
      : { top: 0, left: 0, height: size, width: size };
    return fieldsOf(this.network, this.result, layer, map, box);
  }

  tell() {
    const fields = this.fields();
    inspect(find("#told"), find("#weights"), this.network, this.result, this.pointed, fields);
    const lit = new Map(fields?.map(({ layer, maps, box }) => [layer, { maps, box }]));
    this.machine.classList.toggle("pointing", Boolean(fields));
    this.machine.classList.toggle("asked", Boolean(this.pointed));
    for (const element of this.machine.querySelectorAll("[data-map]")) {
      const { layer, map } = element.dataset;
      const field = lit.get(layer);
      const isLit = field && (layer in UNITS || field.maps.includes(Number(map)));
      element.classList.toggle("lit", Boolean(isLit));
      if (element.matches("button.map:not(.bar)")) this.frame(element, isLit && field);
    }
  }

  /** A frame around what is seen of a map. */
  frame(element, field) {
    element.querySelector("i")?.remove();
    const { layer } = element.dataset;
    const box = field && this.boxIn(layer, field);
    if (!box) return;
    const canvas = element.querySelector("canvas");
    const frame = document.createElement("i");
    const share = (part, whole) => `${(100 * part) / whole}%`;
    frame.style.top = share(box.top, canvas.height);
    frame.style.left = share(box.left, canvas.width);
    frame.style.height = share(box.height, canvas.height);
    frame.style.width = share(box.width, canvas.width);
    element.append(frame);
  }

  boxIn(layer, { maps, box }) {
    if (this.pointed.layer === layer && layer in UNITS) {
      const width = UNITS[layer];
      return { top: Math.floor(maps[0] / width), left: maps[0] % width, height: 1, width: 1 };
    }
    return this.pointed.pixel && !(layer in UNITS) ? box : null;
  }

  drawWires() {
    this.wires.draw(this.network, this.fields());
  }

  // Events

  listen() {
    const on = (selector, handler) => find(selector).addEventListener("click", handler);
    on("#undo", () => this.pad.undo());
    on("#clear", () => this.pad.clear());
    on("#previous", () => this.step(-1, () => true));
    on("#next", () => this.step(1, () => true));
    on("#hard", () => this.step(1, ({ isHard }) => isHard));
    on("#load", () => find("#file").click());
    find("#hard").hidden = !this.digits.some(({ isHard }) => isHard);
    find("#width").addEventListener("input", (event) => (this.pad.width = +event.target.value));
    this.listenForPictures();
    this.listenForPointing();
    addEventListener("keydown", (event) => this.key(event));
  }

  listenForPictures() {
    const first = (files) => [...files].find(({ type }) => type.startsWith("image/"));
    const take = (files) => first(files) && this.read(first(files));
    find("#file").addEventListener("change", ({ target }) => {
      if (target.files.length) this.read(target.files[0]);
      target.value = "";
    });
    addEventListener("paste", ({ clipboardData }) => take(clipboardData.files));
    addEventListener("dragover", (event) => event.preventDefault());
    addEventListener("drop", (event) => {
      event.preventDefault();
      take(event.dataTransfer.files);
    });
  }

  listenForPointing() {
    const at = (event) => event.target.closest?.("[data-map]");
    const point = (event) => at(event) && this.point(at(event), event);
    this.machine.addEventListener("pointermove", point);
    this.machine.addEventListener("pointerdown", point);
    this.machine.addEventListener("pointerover", (event) => {
      if (event.pointerType === "mouse" && this.pointed && !at(event)) this.unpoint();
    });
    this.machine.addEventListener("pointerleave", (event) => {
      if (event.pointerType === "mouse") this.unpoint();
    });
    this.machine.addEventListener("focusin", (event) => {
      if (at(event)?.matches(":focus-visible")) this.point(at(event));
    });
    addEventListener("pointerdown", (event) => {
      // What a finger points at stays, while it draws too.
      if (!at(event) && !event.target.closest("#draw, #inspector")) this.unpoint();
    });
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) {
      if (event.key === "z" && !event.altKey) this.pad.undo();
      return;
    }
    if (event.key === "z") this.pad.undo();
    if (event.key === "c") this.pad.clear();
    if (event.key === "Escape") this.unpoint();
    const map = event.target.closest?.("button.map");
    if (map && event.key.startsWith("Arrow")) this.moveFocus(event, map);
  }

  /** Arrows go from map to map of a layer, or from unit to unit. */
  moveFocus(event, element) {
    event.preventDefault();
    const by = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    const { layer } = element.dataset;
    if (layer in UNITS) {
      const count = this.result[layer].maps;
      const rows = { ArrowDown: UNITS[layer], ArrowUp: -UNITS[layer] }[event.key] ?? by;
      const unit = Math.min(Math.max((this.pointed?.map ?? 0) + rows, 0), count - 1);
      this.pointed = { layer, map: unit, pixel: null };
      this.tell();
      return;
    }
    const maps = [...this.machine.querySelectorAll(`button.map[data-layer="${layer}"]`)];
    const next = maps[(maps.indexOf(element) + by + maps.length) % maps.length];
    element.tabIndex = -1;
    next.tabIndex = 0;
    next.focus();
  }

  /** Compares with what torch said of the test digits, in the browser at hand. */
  check() {
    const gaps = this.networks.flatMap((network) => this.digits.flatMap(({ pixels }, i) => {
      const { probabilities } = run(network, pixels);
      const classes = probabilities.length;
      const answers = network.tensors.answers.subarray(i * classes, (i + 1) * classes);
      return [...probabilities].map((share, k) => Math.abs(share - answers[k]));
    }));
    const gap = gaps.reduce((most, each) => Math.max(most, each), 0);
    find("#check").textContent = `Checked in this browser: on its ${this.digits.length} test digits `
      + `the page differs from PyTorch by at most ${gap.toExponential(1)} in a probability.`;
  }
}

function start(content) {
  const page = new Page(content);
  // For the console, and for tests.
  globalThis.lenet = { page, read: (i, pixels) => run(page.networks[i], pixels) };
  setTimeout(() => page.check(), 500);
}

load(find("#facts").textContent, find("#data").textContent).then(start, () => {
  find("#about").textContent = "This browser is too old to unpack the networks in this page.";
});
