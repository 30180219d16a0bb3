// Who reads whom: tables, kernels and receptive fields, without a page around them.

/** Layers from the input on, with how each reads the one before. */
const ORDER = ["input", "c1", "s2", "c3", "s4", "c5", "f6", "output"];
const UNITS = ["c5", "f6", "output"]; // each reads all of the layer before

/** @typedef {{top: number, left: number, height: number, width: number}} Box */

export const before = (layer) => ORDER[ORDER.indexOf(layer) - 1];
export const after = (layer) => ORDER[ORDER.indexOf(layer) + 1];

/** The maps of the layer before that a map reads. */
export function sourcesOf(network, layer, map) {
  if (layer === "s2" || layer === "s4") return [map];
  const table = network.tables[layer];
  if (table) return table[map];
  return layer === "c5" ? network.tables.c3.map((_, i) => i) : [0];
}

/** The maps of the layer behind that read a map; none where all do, unit by unit. */
export function readersOf(network, layer, map) {
  if (layer === "c1" || layer === "c3") return [map];
  const table = network.tables[after(layer)];
  return table ? table.flatMap((sources, reader) => (sources.includes(map) ? [reader] : [])) : [];
}

/** Position of a map's first kernel among all of its layer. */
export function firstKernel(network, layer, map) {
  return network.tables[layer].slice(0, map).reduce((sum, sources) => sum + sources.length, 0);
}

/** A map's kernels with the map that each reads: [{source, weights}]. */
export function kernelsOf(network, layer, map) {
  const weights = network.tensors[`${layer}.weight`];
  const sources = sourcesOf(network, layer, map);
  const first = layer === "c5" ? 16 * map : firstKernel(network, layer, map);
  return sources.map((source, i) => {
    const start = 25 * (first + i);
    return { source, weights: weights.subarray(start, start + 25) };
  });
}

/**
 * What a part of a map sees, layer by layer, down to the input; of a unit, which sees all, what it
 * reads itself.
 *
 * @param {Object<string, {size: number}>} layers by name, as the network gives them
 * @param {Box} box of the map
 * @returns {{layer: string, maps: number[], box: Box}[]} the layer itself first
 */
export function fieldsOf(network, layers, layer, map, box) {
  const fields = [{ layer, maps: [map], box }];
  const end = UNITS.includes(layer) ? before(layer) : "input";
  while (fields.at(-1).layer !== end) {
    const { layer: upper, maps, box: part } = fields.at(-1);
    const lower = before(upper);
    const sources = [...new Set(maps.flatMap((m) => sourcesOf(network, upper, m)))];
    fields.push({ layer: lower, maps: sources, box: seen(network, layers, upper, part) });
  }
  return fields;
}

function seen(network, layers, layer, box) {
  const size = layers[before(layer)].size;
  if (layer === "s2" || layer === "s4") {
    const [top, left, height, width] = Object.values(box).map((n) => 2 * n);
    return { top, left, height, width };
  }
  if (layer === "c1" || layer === "c3") {
    const padding = layer === "c1" && network.kind === "lenet5" ? 2 : 0;
    return within(size, box.top - padding, box.left - padding, box.height + 4, box.width + 4);
  }
  return { top: 0, left: 0, height: size, width: size };
}

function within(size, top, left, height, width) {
  const [first, start] = [Math.max(0, top), Math.max(0, left)];
  const [last, end] = [Math.min(size, top + height), Math.min(size, left + width)];
  return { top: first, left: start, height: last - first, width: end - start };
}
