"use strict";
// Hides contenders, chooses the group of the figures, filters and sorts the table, chooses the timeline.
const every = (selector) => [...document.querySelectorAll(selector)], byId = (id) => document.getElementById(id);
const chips = every("[data-chip]"), rows = every("#numbers tbody tr"), group = byId("group"), filter = byId("filter");

function show() {
  const on = new Set(chips.filter((c) => c.getAttribute("aria-pressed") === "true").map((c) => c.dataset.chip));
  const chosen = group ? group.value : "", words = filter ? filter.value.toLowerCase().split(/\s+/).filter(Boolean) : [];
  every("g[data-c], .heat tr[data-c]").forEach((e) => (e.style.display = on.has(e.dataset.c) ? "" : "none"));
  every("figure[data-g]").forEach((e) => (e.hidden = e.dataset.g !== (chosen || "0")));
  let count = 0;
  for (const row of rows) {
    const text = row.cells[0].textContent.toLowerCase() + " " + row.cells[1].textContent.toLowerCase();
    row.hidden = !(on.has(row.dataset.c) && (chosen === "" || row.dataset.row === chosen) && words.every((w) => text.includes(w)));
    count += row.hidden ? 0 : 1;
  }
  if (byId("count")) byId("count").textContent = count === rows.length ? `${count} rows` : `${count} of ${rows.length} rows`;
}

chips.forEach((chip) => chip.addEventListener("click", () => {
  chip.setAttribute("aria-pressed", String(chip.getAttribute("aria-pressed") !== "true"));
  show();
}));
byId("every").addEventListener("click", () => {
  const all = chips.every((c) => c.getAttribute("aria-pressed") === "true");
  chips.forEach((c) => c.setAttribute("aria-pressed", String(!all)));
  show();
});
if (group) group.addEventListener("change", show);
if (filter) filter.addEventListener("input", show);

const table = byId("numbers");
if (table) {
  const heads = [...table.tHead.rows[0].cells], body = table.tBodies[0];
  heads.forEach((head, column) => head.firstElementChild.addEventListener("click", () => {
    // Ranks and groups begin with the first, numbers with the largest.
    const before = head.getAttribute("aria-sort"), first = column > 1 ? "descending" : "ascending";
    const order = before ? (before === "ascending" ? "descending" : "ascending") : first;
    const sign = order === "ascending" ? 1 : -1;
    heads.forEach((h) => h.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", order);
    // What is not known stands last, however it is sorted.
    const value = (row) => ("v" in row.cells[column].dataset ? sign * Number(row.cells[column].dataset.v) : Infinity);
    const pairs = rows.map((row) => [value(row), row]).sort((a, b) => (a[0] === b[0] ? 0 : a[0] < b[0] ? -1 : 1));
    body.append(...pairs.map((pair) => pair[1]));
  }));
}

const cell = byId("cell");
if (cell) cell.addEventListener("change", () => every("[data-gantt]").forEach((e) => (e.hidden = e.dataset.gantt !== cell.value)));
show();
