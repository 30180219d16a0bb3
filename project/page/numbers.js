// What the file carries: weights, test digits and torch's own answers, packed by the export.

/**
 * The networks and the test digits of the page.
 *
 * @param {string} json the facts
 * @param {string} data the numbers, packed
 */
export async function load(json, data) {
  const facts = JSON.parse(json);
  const { floats, bytes } = await unpack(data, facts.floats);
  let start = 0;
  for (const network of facts.networks) {
    const length = network.lengths.reduce((sum, [, count]) => sum + count, 0);
    network.tensors = named(floats.subarray(start, (start += length)), network.lengths);
  }
  const { labels, wrong } = facts.digits;
  const digits = labels.map((label, i) => ({
    label, isHard: wrong[i], pixels: bytes.subarray(784 * i, 784 * (i + 1)),
  }));
  return { networks: facts.networks, digits };
}

/**
 * Unpacks the data of the page.
 *
 * Floats are stored in four planes, all first bytes, then all second ones and so on, because
 * bytes that are alike pack well side by side; the digits' bytes follow. All of it is deflated.
 *
 * @param {string} text as `decoded` takes it
 * @param {number} floats how many float32 there are
 * @returns {Promise<{floats: Float32Array, bytes: Uint8Array}>}
 */
async function unpack(text, floats) {
  const stream = new Blob([decoded(text.trim())]).stream().pipeThrough(new DecompressionStream("deflate"));
  const all = new Uint8Array(await new Response(stream).arrayBuffer());
  const view = new DataView(new ArrayBuffer(4 * floats));
  for (let plane = 0; plane < 4; plane++) {
    for (let i = 0; i < floats; i++) {
      view.setUint8(4 * i + plane, all[plane * floats + i]);
    }
  }
  const numbers = Float32Array.from({ length: floats }, (_, i) => view.getFloat32(4 * i, true));
  return { floats: numbers, bytes: all.subarray(4 * floats) };
}

const LETTERS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
  + "!#$%&()*+-;<=>?@^_`{|}~";

/** The bytes of text in base 85, five letters for four, as Python's base64.b85encode writes it. */
function decoded(text) {
  const values = new Map([...LETTERS].map((letter, value) => [letter, value]));
  const groups = Math.ceil(text.length / 5);
  const view = new DataView(new ArrayBuffer(4 * groups));
  for (let group = 0; group < groups; group++) {
    let number = 0;
    for (let i = 5 * group; i < 5 * group + 5; i++) {
      number = 85 * number + (values.get(text[i]) ?? 84);
    }
    view.setUint32(4 * group, number);
  }
  return new Uint8Array(view.buffer, 0, Math.floor((4 * text.length) / 5));
}

/** Cuts a long array into named ones: [[name, length], ...] -> {name: Float32Array}. */
function named(floats, lengths) {
  let start = 0;
  return Object.fromEntries(
    lengths.map(([name, length]) => [name, floats.subarray(start, (start += length))]),
  );
}
