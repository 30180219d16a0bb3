// Lines between the maps, behind them: all connections faintly, those of what is pointed at in
// colour, with the kernels that they pass.

import { colourOf, styled } from "./colours.js";
import { after, before, kernelsOf, readersOf } from "./connections.js";

const LINKED = ["c1", "s2", "c3", "s4"];
const WHOLE = ["s4", "c5", "f6"]; // all of it is read by every unit behind
const CELL = 5; // of a kernel, in CSS pixels

/** Draws the lines of a network. */
export class Wires {
  constructor(canvas, machine) {
    this.canvas = canvas;
    this.machine = machine;
  }

  /**
   * @param {object} network
   * @param {{layer: string, maps: number[]}[] | null} fields of what is pointed at, itself first
   */
  draw(network, fields) {
    const context = this.prepare();
    if (network.kind === "linear") return;
    for (const layer of WHOLE) this.fan(context, layer);
    context.strokeStyle = styled("--wire");
    context.lineWidth = 1;
    context.globalAlpha = fields ? 0.35 : 1;
    for (const [from, to] of everyLink(network)) this.line(context, from, to);
    context.globalAlpha = 1;
    if (fields) this.drawPointed(context, network, fields);
  }

  drawPointed(context, network, fields) {
    context.strokeStyle = styled("--accent");
    context.lineWidth = 1.75;
    for (const [from, to] of linksOf(network, fields)) this.line(context, from, to);
    const { layer, maps: [map] } = fields[0];
    if (layer !== "c1" && layer !== "c3") return;
    const kernels = kernelsOf(network, layer, map);
    const most = Math.max(...kernels.flatMap(({ weights }) => [...weights].map(Math.abs)));
    for (const { source, weights } of kernels) {
      const from = layer === "c1" ? [layer, map] : [before(layer), source];
      this.kernel(context, from, weights, most, layer === "c1");
    }
  }

  prepare() {
    const { width, height } = this.machine.getBoundingClientRect();
    const ratio = devicePixelRatio;
    this.canvas.width = Math.round(width * ratio);
    this.canvas.height = Math.round(height * ratio);
    this.isAcross = styled("--flow") === "across";
    const context = this.canvas.getContext("2d");
    context.scale(ratio, ratio);
    return context;
  }

  /** Where a map is, from the machine's corner. */
  rect([layer, map]) {
    const element = this.machine.querySelector(
      `button.map[data-layer="${layer}"][data-map="${map}"]`,
    );
    if (!element) return null;
    const [box, origin] = [element, this.machine].map((each) => each.getBoundingClientRect());
    const [left, top] = [box.left - origin.left, box.top - origin.top];
    return { left, top, right: left + box.width, bottom: top + box.height,
      x: left + box.width / 2, y: top + box.height / 2 };
  }

  line(context, from, to) {
    const [a, b] = [this.rect(from), this.rect(to)];
    if (!a || !b) return;
    context.beginPath();
    if (this.isAcross) {
      const middle = (a.right + b.left) / 2;
      context.moveTo(a.right, a.y);
      context.bezierCurveTo(middle, a.y, middle, b.y, b.left, b.y);
    } else {
      const middle = (a.bottom + b.top) / 2;
      context.moveTo(a.x, a.bottom);
      context.bezierCurveTo(a.x, middle, b.x, middle, b.x, b.top);
    }
    context.stroke();
  }

  /** A shade between two layers where each unit reads all. */
  fan(context, layer) {
    const [a, b] = [layer, after(layer)].map((name) => this.outline(name));
    if (!a || !b || !this.isAcross) return;
    context.fillStyle = styled("--fan");
    context.beginPath();
    context.moveTo(a.right + 3, a.top);
    context.lineTo(b.left - 3, b.top);
    context.lineTo(b.left - 3, b.bottom);
    context.lineTo(a.right + 3, a.bottom);
    context.fill();
  }

  outline(layer) {
    const maps = [...this.machine.querySelectorAll(`button.map[data-layer="${layer}"]`)];
    if (!maps.length) return null;
    const first = this.rect([layer, 0]);
    return { ...first, bottom: this.rect([layer, maps.length - 1]).bottom };
  }

  /** A kernel behind the map that it reads, or before its own. */
  kernel(context, at, weights, most, isBefore) {
    const box = this.rect(at);
    const side = 5 * CELL;
    const across = isBefore ? box.left - side - 5 : box.right + 5;
    const down = isBefore ? box.top - side - 5 : box.bottom + 5;
    const [x, y] = this.isAcross ? [across, box.y - side / 2] : [box.x - side / 2, down];
    context.fillStyle = styled("--accent");
    context.fillRect(x - 1.5, y - 1.5, side + 3, side + 3);
    weights.forEach((weight, i) => {
      context.fillStyle = colourOf(weight, most);
      context.fillRect(x + CELL * (i % 5), y + CELL * Math.floor(i / 5), CELL, CELL);
    });
  }
}

function everyLink(network) {
  const links = network.tables.c1.map((_, map) => [["input", 0], ["c1", map]]);
  for (const layer of ["c1", "s2", "c3"]) {
    const count = layer === "c3" ? 16 : 6;
    for (let map = 0; map < count; map++) {
      for (const reader of readersOf(network, layer, map)) {
        links.push([[layer, map], [after(layer), reader]]);
      }
    }
  }
  return links;
}

/** Down from what is pointed at to the input, and one step up. */
function linksOf(network, fields) {
  const lit = Object.fromEntries(fields.map(({ layer, maps }) => [layer, maps]));
  const { layer: top, maps: [map] } = fields[0];
  return everyLink(network).filter(([[from, source], [to, reader]]) => {
    if (from === top) return source === map && LINKED.includes(top);
    return lit[from]?.includes(source) && lit[to]?.includes(reader);
  });
}
