// The layers as the paper's figure 2 has them: each map a small picture that can be pointed at.

import { paint } from "./colours.js";

/** What is shown of each kind of network, with the units of a layer as rows of so many. */
const SHOWN = {
  lenet5: ["c1", "s2", "c3", "s4", "c5", "f6"],
  "lenet5-1998": ["c1", "s2", "c3", "s4", "c5", "f6"],
  linear: ["weights", "parts"],
};
export const UNITS = { c5: 8, f6: 7 };
const MOST = { lenet5: 1, "lenet5-1998": 1.7159 };

/** How a map or a unit is called. */
export function nameOf(layer, map) {
  if (layer === "input") return "Input";
  return `${layer.toUpperCase()}, ${layer in UNITS ? "unit" : "map"} ${map}`;
}

/** The weights of a linear classifier as what they do to a pixel of full ink. */
export function linearWeights({ tensors }) {
  return tensors["output.weight"].map((weight, i) => 255 * weight * tensors.scale[i]);
}

/** Makes the elements for a network's layers. */
export function buildLayers(root, inputRoot, network, layers) {
  root.replaceChildren(...SHOWN[network.kind].map((name) => layerElement(network, name, layers)));
  inputRoot.querySelector("small").textContent = sizeOf(layers.input);
  inputRoot.querySelector(".maps").replaceChildren(mapElement("input", 0, "Input"));
}

function layerElement(network, name, layers) {
  const layer = name === "weights" ? layers.input : layers[name];
  const element = document.createElement("div");
  element.className = "layer";
  element.dataset.layer = name;
  const title = document.createElement("h2");
  const small = document.createElement("small");
  small.textContent = name in UNITS ? `${layer.maps}` : sizeOf(layer);
  title.append(`${titleOf(name)} `, small);
  const maps = document.createElement("div");
  maps.className = "maps";
  maps.setAttribute("role", "group");
  maps.setAttribute("aria-label", titleOf(name));
  const count = name in UNITS ? 1 : layer.maps;
  for (let map = 0; map < count; map++) {
    maps.append(mapElement(name, map, name in UNITS ? titleOf(name) : nameOf(name, map)));
  }
  element.append(title, maps);
  if (network.kind === "linear") element.append(noteOf(network, name));
  return element;
}

function mapElement(layer, map, label) {
  const button = document.createElement("button");
  button.className = "map";
  button.dataset.layer = layer;
  button.dataset.map = map;
  button.tabIndex = map === 0 ? 0 : -1;
  button.setAttribute("aria-label", label);
  button.append(document.createElement("canvas"));
  return button;
}

const sizeOf = ({ maps, size }) => `${maps > 1 ? `${maps}@` : ""}${size}\u00d7${size}`;

const titleOf = (name) => ({ weights: "Weights", parts: "Weights \u00d7 pixels" })[name]
  ?? name.toUpperCase();

function noteOf({ digits }, name) {
  const note = document.createElement("p");
  note.className = "note";
  note.textContent = name === "weights"
    ? `Ink on orange speaks for ${digits[1]}, on blue for ${digits[0]}.`
    : `What your ink adds to the sum: above 0 it is ${digits[1]}, below ${digits[0]}.`;
  return note;
}

/** Paints what a run of the network gave. */
export function paintLayers(machine, network, layers) {
  for (const button of machine.querySelectorAll("button.map[data-layer]")) {
    const { layer, map } = button.dataset;
    const canvas = button.querySelector("canvas");
    if (layer === "input") {
      paint(canvas, layers.input.values, layers.input.size, network.paper, network.ink, "ink");
    } else if (network.kind === "linear") {
      paintSigned(canvas, layer === "weights" ? linearWeights(network) : layers.parts.values, 28);
    } else if (layer in UNITS) {
      paintSigned(canvas, layers[layer].values, UNITS[layer], MOST[network.kind]);
    } else if (layer !== "output") {
      const { size, values } = layers[layer];
      const part = values.subarray(map * size * size, (Number(map) + 1) * size * size);
      paintSigned(canvas, part, size, MOST[network.kind]);
    }
  }
}

/** Paints values around 0; without `most` the largest of them is the end of the scale. */
export function paintSigned(canvas, values, width, most) {
  most ??= values.reduce((largest, value) => Math.max(largest, Math.abs(value)), 1e-9);
  paint(canvas, values, width, -most, most);
}
