// What the page says of the networks in it: three sentences, and a table.

const percent = (share) => `${(100 * share).toFixed(2)}\u00a0%`;
const counted = (count) => count.toLocaleString("en");

const WHAT = {
  lenet5: ({ tables }) => {
    const links = tables.c3.flat().length;
    return links === 60
      ? "LeNet-5 reads handwritten digits; its layer C3 has the 60 connections of Table I in LeCun, "
        + "Bottou, Bengio and Haffner (1998)."
      : `LeNet-5 reads handwritten digits; here C3 reads all maps of S2, by ${links} connections `
        + "where the table of 1998 has 60.";
  },
  "lenet5-1998": () =>
    "LeNet-5 as LeCun, Bottou, Bengio and Haffner had it in 1998: F6 draws 7\u00d712 dots, and the "
    + "nearest of ten drawn digits is the answer.",
  linear: ({ digits }) =>
    `This is a single neuron that tells ${digits[0]} from ${digits[1]} by one sum of weighted `
    + "pixels, and knows no other digit.",
};

/** What the page is, in three sentences. */
export function aboutOf(network) {
  const { name, correct, total, parameters, date } = network;
  const when = date ? `, as trained on ${date}` : "";
  return `${WHAT[network.kind](network)} This run, ${name}, has ${counted(parameters)} parameters `
    + `and reads ${percent(correct / total)} of ${counted(total)} test digits right${when}. Draw `
    + "one: all of it is computed in this page, and nothing you draw leaves it.";
}

/** The title above it. */
export const titleOf = ({ kind, digits }) =>
  kind === "linear" ? `${digits[0]} or ${digits[1]}? One neuron decides` : "LeNet-5 reads your digit";

/** Which test digit is on the sheet. */
export const testDigit = (position, count, label, isHard) =>
  `Test digit ${position} of ${count}: a ${label}${isHard ? ", a hard one" : ""}`;

/** Where the digit on the sheet is from: one of so many on a picture. */
export const foundIn = (name, count) => (count === 1
  ? `The ink found in ${name}` : `${count} digits found in ${name}, in their order`);

/** How many test digits it reads right. */
export const accuracyOf = ({ correct, total }) => percent(correct / total);

/** The runs side by side. */
export function fillRuns(table, networks) {
  const rows = networks.map(({ name, correct, total, parameters, date, tables }) => [
    name, `${percent(correct / total)} of ${counted(total)}`, counted(parameters),
    tables.c3 ? `${tables.c3.flat().length}` : "\u2013", date ?? "\u2013",
  ]);
  table.createCaption().textContent = "The networks of this page";
  addRow(table.createTHead(), "th", ["run", "test digits right", "parameters",
    "connections of C3", "trained on"]);
  const body = table.createTBody();
  for (const row of rows) addRow(body, "td", row);
}

function addRow(section, kind, texts) {
  const row = section.insertRow();
  for (const text of texts) {
    const cell = document.createElement(kind);
    cell.textContent = text;
    row.append(cell);
  }
}
