// What is told of the map, unit or digit that one points at.

import { kernelsOf, readersOf, sourcesOf } from "./connections.js";
import { UNITS, linearWeights, nameOf, paintSigned } from "./layers.js";

const HELP = ["Point at anything", `A map, a pixel of it, a unit, a digit's bar or a row of the
  table: its connections light up and its weights are shown here. A finger does it too; so do Tab
  and the arrow keys.`];

const number = (value) => value.toFixed(3).replace("-", "\u2212");
const list = (numbers) => numbers.join(", ");

/**
 * Tells of what is pointed at.
 *
 * @param {{layer: string, map: number, pixel: number[] | null} | null} pointed
 * @param {{layer: string, maps: number[], box: object}[] | null} fields what it sees
 */
export function inspect(text, weights, network, result, pointed, fields) {
  const told = pointed && TELL[pointed.layer]?.(network, result, pointed);
  const [title, words] = told ? [told.title, told.words] : HELP;
  const heading = document.createElement("h2");
  heading.textContent = title;
  const paragraph = document.createElement("p");
  paragraph.textContent = words + (told ? pixelWords(result, pointed, fields) : "");
  text.replaceChildren(heading, paragraph);
  weights.replaceChildren(...(told?.pictures ?? []).map((picture) => figure(picture)));
}

function pixelWords(result, { layer, map, pixel }, fields) {
  if (!pixel || !fields || layer === "input") return "";
  const { size, values } = result[layer];
  const value = values[map * size * size + pixel[0] * size + pixel[1]];
  const { height, width } = fields.at(-1).box;
  return ` Row ${pixel[0]}, column ${pixel[1]}: ${number(value)}; it sees ${height}\u00d7${width} `
    + "pixels of the input.";
}

function figure({ values, width, label, most }) {
  const element = document.createElement("figure");
  const canvas = document.createElement("canvas");
  canvas.style.aspectRatio = `${width} / ${values.length / width}`;
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", label);
  paintSigned(canvas, values, width, most);
  const caption = document.createElement("figcaption");
  caption.textContent = label;
  element.append(canvas, caption);
  if (width > 5) element.className = "large";
  return element;
}

function convolution(network, layer, map, lower) {
  const kernels = kernelsOf(network, layer, map);
  const most = Math.max(...kernels.flatMap(({ weights }) => [...weights].map(Math.abs)));
  const bias = network.tensors[`${layer}.bias`][map];
  return {
    title: nameOf(layer, map),
    bias: number(bias),
    pictures: kernels.map(({ source, weights }) => ({
      values: weights, width: 5, most, label: `${lower}${lower === "input" ? "" : ` ${source}`}`,
    })),
  };
}

function subsampling(network, layer, map, lower) {
  const scale = network.tensors[`${layer}.weight`]?.[map];
  const how = scale === undefined
    ? "tanh of the means of 2\u00d72 values: nothing to learn"
    : `sums of 2\u00d72 values, times ${number(scale)}, plus `
      + `${number(network.tensors[`${layer}.bias`][map])}, through tanh`;
  const readers = readersOf(network, layer, map);
  const read = readers.length ? `C3's maps ${list(readers)} read it.` : "All of C5 reads it.";
  return { title: nameOf(layer, map), words: `From ${lower}'s map ${map}, ${how}. ${read}` };
}

function unit(network, result, layer, map, lower) {
  const count = result[lower].values.length;
  const weights = network.tensors[`${layer}.weight`].subarray(count * map, count * (map + 1));
  return {
    title: nameOf(layer, map),
    words: `It reads all ${count} values of ${lower.toUpperCase()}, and says `
      + `${number(result[layer].values[map])} now.`,
    pictures: [{ values: weights, width: UNITS[lower], label: "its weights" }],
  };
}

/** For each layer: a title, words and pictures. */
const TELL = {
  input: (network, result, { pixel }) => ({
    title: "Input",
    words: pixel
      ? `Row ${pixel[0]}, column ${pixel[1]}: `
        + `${number(result.input.values[pixel[0] * result.input.size + pixel[1]])}.`
      : `${result.input.size}\u00d7${result.input.size} numbers, from ${network.paper.toFixed(3)} `
        + `for paper to ${network.ink.toFixed(3)} for ink.`,
  }),
  c1: (network, result, { map }) => {
    const told = convolution(network, "c1", map, "input");
    return { ...told, words: `One 5\u00d75 kernel goes over the input; its bias is ${told.bias}.` };
  },
  s2: (network, result, { map }) => subsampling(network, "s2", map, "C1"),
  c3: (network, result, { map }) => {
    const told = convolution(network, "c3", map, "S2");
    const sources = sourcesOf(network, "c3", map);
    const words = `It reads ${sources.length} of S2's 6 maps, ${list(sources)}, each through a `
      + `5\u00d75 kernel of its own: ${25 * sources.length} weights and a bias, ${told.bias}.`;
    return { ...told, words };
  },
  s4: (network, result, { map }) => subsampling(network, "s4", map, "C3"),
  c5: (network, result, { map }) => {
    const told = convolution(network, "c5", map, "S4");
    const value = number(result.c5.values[map]);
    const words = `It reads all 16 maps of S4, a kernel for each, and says ${value} now.`;
    return { ...told, words };
  },
  f6: (network, result, { map }) => unit(network, result, "f6", map, "c5"),
  output: (network, result, { map }) => OUTPUT[network.kind](network, result, map),
  weights: (network, result, { pixel }) => linearPixel(network, result, pixel),
  parts: (network, result, { pixel }) => linearPixel(network, result, pixel),
};

const OUTPUT = {
  lenet5: (network, result, map) => {
    const weights = network.tensors["output.weight"].subarray(84 * map, 84 * (map + 1));
    const now = weights.map((weight, i) => weight * result.f6.values[i]);
    return {
      title: `Digit ${network.digits[map]}`,
      words: `84 weights times what F6 says, plus a bias: ${number(result.outputs[map])}. `
        + "Orange speaks for it, blue against.",
      pictures: [
        { values: weights, width: 7, label: "weights" },
        { values: now, width: 7, label: "times F6" },
      ],
    };
  },
  "lenet5-1998": (network, result, map) => {
    const code = network.tensors.codes.subarray(84 * map, 84 * (map + 1));
    const gaps = code.map((dot, i) => (result.f6.values[i] - dot) ** 2);
    return {
      title: `Digit ${network.digits[map]}`,
      words: `F6 is compared with a drawn ${network.digits[map]}, dot by dot: the squares of the `
        + `differences add up to ${result.outputs[map].toFixed(2)}. The nearest digit wins.`,
      pictures: [
        { values: result.f6.values, width: 7, most: 1.7159, label: "F6 now" },
        { values: code, width: 7, most: 1.7159, label: "drawn" },
        { values: gaps, width: 7, most: 4, label: "differences\u00b2" },
      ],
    };
  },
  linear: (network, result, map) => ({
    title: `Digit ${network.digits[map]}`,
    words: `Weights times pixels, plus the bias ${number(network.tensors["output.bias"][0])}, make `
      + `${number(result.outputs[0])}: above 0 it says ${network.digits[1]}, below `
      + `${network.digits[0]}.`,
  }),
};

function linearPixel(network, result, pixel) {
  const [row, column] = pixel ?? [14, 14];
  const at = 28 * row + column;
  const weight = linearWeights(network)[at];
  return {
    title: `Row ${row}, column ${column}`,
    words: `Full ink here adds ${number(weight)} to the sum; yours adds `
      + `${number(result.parts.values[at])}. The sum is ${number(result.outputs[0])}.`,
  };
}
