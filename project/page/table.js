// The table of C3's connections: which maps of S2 each of its maps reads.

/** Shows a network's table; nothing for one without C3. */
export function buildTable(root, { tables }) {
  if (!tables.c3) return root.replaceChildren();
  const count = tables.c3.flat().length;
  const head = [0, 1, 2, 3, 4, 5].map((source) => `<th scope="col">${source}</th>`).join("");
  const rows = tables.c3.map((sources, map) => {
    const cells = [0, 1, 2, 3, 4, 5].map((source) =>
      sources.includes(source) ? `<td class="on">\u00d7</td>` : "<td></td>");
    return `<tr data-layer="c3" data-map="${map}"><th scope="row">${map}</th>${cells.join("")}</tr>`;
  });
  root.innerHTML = `<table><caption>${count === 60
    ? "C3 by Table I of 1998: 60 of 96" : `C3 without a table: all ${count}`}</caption>
    <thead><tr><th scope="col">C3</th>${head}</tr></thead><tbody>${rows.join("")}</tbody></table>`;
}
