// The arithmetic of the networks. Layers carry the names of LeCun et al. 1998.

/**
 * A layer's outputs: `maps` squares of `size` x `size` values, one behind the other.
 * @typedef {{maps: number, size: number, values: Float64Array}} Maps
 */

const AMPLITUDE = 1.7159;
const squash = (x) => AMPLITUDE * Math.tanh((2 / 3) * x);

/**
 * Runs a network.
 *
 * @param {object} network its facts, with `kind` and `tensors` by name
 * @param {Uint8Array} pixels 784 of them, 0 paper to 255 ink
 * @returns {Object<string, any>} the layers by name; `outputs` and `probabilities` by class
 */
export function run(network, pixels) {
  return KINDS[network.kind](network, pixels);
}

function runLeNet5(network, pixels) {
  const t = network.tensors;
  const input = inputOf(network, pixels);
  const c1 = convolve(input, network.tables.c1, t["c1.weight"], t["c1.bias"], Math.tanh, 2);
  const s2 = average(c1, Math.tanh);
  const c3 = convolve(s2, network.tables.c3, t["c3.weight"], t["c3.bias"], Math.tanh);
  const s4 = average(c3, Math.tanh);
  const c5 = connect(s4, t["c5.weight"], t["c5.bias"], Math.tanh);
  const f6 = connect(c5, t["f6.weight"], t["f6.bias"], Math.tanh);
  const outputs = connect(f6, t["output.weight"], t["output.bias"], (x) => x).values;
  return { input, c1, s2, c3, s4, c5, f6, outputs, probabilities: softmax(outputs) };
}

function runLeNet1998(network, pixels) {
  const t = network.tensors;
  const input = inputOf(network, pixels, 2);
  const c1 = convolve(input, network.tables.c1, t["c1.weight"], t["c1.bias"], squash);
  const s2 = subsample(c1, t["s2.weight"], t["s2.bias"]);
  const c3 = convolve(s2, network.tables.c3, t["c3.weight"], t["c3.bias"], squash);
  const s4 = subsample(c3, t["s4.weight"], t["s4.bias"]);
  const c5 = connect(s4, t["c5.weight"], t["c5.bias"], squash);
  const f6 = connect(c5, t["f6.weight"], t["f6.bias"], squash);
  const outputs = distances(f6.values, t.codes);
  return { input, c1, s2, c3, s4, c5, f6, outputs, probabilities: softmax(outputs.map((d) => -d)) };
}

/** One margin: the first class below 0, the second above. */
function runLinear(network, pixels) {
  const { "output.weight": weight, "output.bias": bias, scale } = network.tensors;
  const input = inputOf(network, pixels);
  const parts = input.values.map((pixel, i) => pixel * scale[i] * weight[i]);
  const margin = parts.reduce((sum, part) => sum + part, bias[0]);
  const outputs = Float64Array.of(margin);
  const probabilities = Float64Array.of(sigmoid(-margin), sigmoid(margin));
  return { input, parts: { maps: 1, size: 28, values: parts }, outputs, probabilities };
}

const KINDS = { lenet5: runLeNet5, "lenet5-1998": runLeNet1998, linear: runLinear };

const sigmoid = (x) => 1 / (1 + Math.exp(-x));

/** The image as the network takes it, with a margin of paper around it. */
function inputOf(network, pixels, margin = 0) {
  const size = 28 + 2 * margin;
  const step = (network.ink - network.paper) / 255;
  const values = new Float64Array(size * size).fill(network.paper);
  for (let row = 0; row < 28; row++) {
    const start = (row + margin) * size + margin;
    for (let column = 0; column < 28; column++) {
      values[start + column] = network.paper + step * pixels[28 * row + column];
    }
  }
  return { maps: 1, size, values };
}

/** 5x5 kernels, one for each connection of the table, in its order; zeros around for padding. */
function convolve(x, table, weight, bias, activation, padding = 0) {
  const from = padded(x, padding);
  const size = from.size - 4;
  const values = new Float64Array(table.length * size * size);
  let kernel = 0;
  for (let map = 0; map < table.length; map++) {
    const sums = values.subarray(map * size * size, (map + 1) * size * size).fill(bias[map]);
    for (const source of table[map]) {
      addConvolved(sums, size, from, source, weight, 25 * kernel);
      kernel += 1;
    }
    for (let i = 0; i < sums.length; i++) sums[i] = activation(sums[i]);
  }
  return { maps: table.length, size, values };
}

function padded(x, padding) {
  if (!padding) return x;
  const size = x.size + 2 * padding;
  const values = new Float64Array(size * size);
  for (let row = 0; row < x.size; row++) {
    const part = x.values.subarray(row * x.size, (row + 1) * x.size);
    values.set(part, (row + padding) * size + padding);
  }
  return { maps: 1, size, values };
}

function addConvolved(sums, size, from, source, weight, kernel) {
  const values = from.values;
  const width = from.size;
  for (let row = 0; row < size; row++) {
    for (let column = 0; column < size; column++) {
      let at = source * width * width + row * width + column;
      let sum = 0;
      for (let k = kernel; k < kernel + 25; k += 5, at += width) {
        sum += weight[k] * values[at] + weight[k + 1] * values[at + 1]
          + weight[k + 2] * values[at + 2] + weight[k + 3] * values[at + 3]
          + weight[k + 4] * values[at + 4];
      }
      sums[row * size + column] += sum;
    }
  }
}

/** Sums of 2x2 values, through a function of the sum and the map. */
function pool(x, finish) {
  const size = x.size / 2;
  const values = new Float64Array(x.maps * size * size);
  let i = 0;
  for (let map = 0; map < x.maps; map++) {
    for (let row = 0; row < size; row++) {
      let at = (map * x.size + 2 * row) * x.size;
      for (let column = 0; column < size; column++, at += 2) {
        const below = at + x.size;
        const sum = x.values[at] + x.values[at + 1] + x.values[below] + x.values[below + 1];
        values[i++] = finish(sum, map);
      }
    }
  }
  return { maps: x.maps, size, values };
}

const average = (x, activation) => pool(x, (sum) => activation(sum / 4));

const subsample = (x, weight, bias) => pool(x, (sum, map) => squash(sum * weight[map] + bias[map]));

function connect(x, weight, bias, activation) {
  const values = new Float64Array(bias.length);
  const count = x.values.length;
  for (let unit = 0; unit < values.length; unit++) {
    let sum = bias[unit];
    for (let i = 0; i < count; i++) sum += weight[unit * count + i] * x.values[i];
    values[unit] = activation(sum);
  }
  return { maps: values.length, size: 1, values };
}

/** The squared distance to each digit's drawn picture of 7x12 dots: Eq. 7 of 1998. */
function distances(f6, codes) {
  return Float64Array.from({ length: codes.length / f6.length }, (_, digit) =>
    f6.reduce((sum, value, i) => sum + (value - codes[digit * f6.length + i]) ** 2, 0),
  );
}

function softmax(logits) {
  const largest = Math.max(...logits);
  const exponentials = logits.map((logit) => Math.exp(logit - largest));
  const sum = exponentials.reduce((a, b) => a + b);
  return exponentials.map((value) => value / sum);
}
