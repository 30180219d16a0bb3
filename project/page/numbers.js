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
 * @param {string} text base64
 * @param {number} floats how many float32 there are
 * @returns {Promise<{floats: Float32Array, bytes: Uint8Array}>}
 */
async function unpack(text, floats) {
  const packed = Uint8Array.from(atob(text.trim()), (letter) => letter.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
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

/** Cuts a long array into named ones: [[name, length], ...] -> {name: Float32Array}. */
function named(floats, lengths) {
  let start = 0;
  return Object.fromEntries(
    lengths.map(([name, length]) => [name, floats.subarray(start, (start += length))]),
  );
}
