"use strict";
// Sorts the table of all numbers by the column that is clicked: first so that large numbers come first, then the other way round.
const table = document.getElementById("numbers"), heads = [...table.tHead.rows[0].cells], body = table.tBodies[0];
heads.forEach((head, column) => head.firstElementChild.addEventListener("click", () => {
  // The first column holds ranks: the best comes first.
  const before = head.getAttribute("aria-sort"), first = column ? "descending" : "ascending";
  const order = before ? (before === "ascending" ? "descending" : "ascending") : first;
  const sign = order === "ascending" ? 1 : -1;
  heads.forEach((h) => h.removeAttribute("aria-sort"));
  head.setAttribute("aria-sort", order);
  // What is not known stands last, however it is sorted.
  const value = (row) => ("v" in row.cells[column].dataset ? sign * Number(row.cells[column].dataset.v) : Infinity);
  const rows = [...body.rows].map((row) => [value(row), row]);
  rows.sort((a, b) => (a[0] === b[0] ? 0 : a[0] < b[0] ? -1 : 1));
  body.append(...rows.map((pair) => pair[1]));
}));
