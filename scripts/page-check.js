// Appended to a copy of a report by scripts/test-page: uses the page as a reader would and writes what it found into the title.
(() => {
  const found = [], check = (ok, what) => found.push((ok ? "ok " : "WRONG ") + what);
  const all = (s) => [...document.querySelectorAll(s)], seen = (e) => e.offsetParent !== null || e.getClientRects().length > 0;
  const rows = () => all("#numbers tbody tr").filter(seen), before = rows().length;
  check(before > 2, "rows: " + before);
  check(all("svg.chart").filter(seen).length > 1, "charts");
  check(all("svg.chart").every((s) => !/NaN|Infinity/.test(s.innerHTML)), "no number is missing in a chart");
  // Filter.
  const filter = document.getElementById("filter"), word = rows()[0].cells[0].textContent.replace(/^\d+/, "");
  filter.value = word; filter.dispatchEvent(new Event("input"));
  check(rows().length > 0 && rows().length < before && rows().every((r) => r.textContent.includes(word)), "filter");
  filter.value = ""; filter.dispatchEvent(new Event("input"));
  // Sort, both ways.
  const head = all("#numbers thead th")[3], values = () => rows().map((r) => Number(r.cells[3].dataset.v));
  head.firstElementChild.click();
  const down = values();
  head.firstElementChild.click();
  const up = values();
  check(down.every((v, i) => i === 0 || v <= down[i - 1]) && up.every((v, i) => i === 0 || v >= up[i - 1]) && up[0] !== up[up.length - 1], "sort");
  // A contender is hidden everywhere, and comes back.
  const chip = document.querySelector("[data-chip]"), of = () => all(`g[data-c="${chip.dataset.chip}"]`).filter((g) => g.style.display !== "none").length;
  const drawn = of();
  chip.click();
  check(drawn > 0 && of() === 0 && rows().length < before, "hide a contender");
  chip.click();
  check(of() === drawn && rows().length === before, "show it again");
  // Another group, another timeline.
  const group = document.getElementById("group");
  if (group) {
    group.value = "1"; group.dispatchEvent(new Event("change"));
    check(rows().every((r) => r.dataset.row === "1") && all("figure[data-g]").filter(seen).every((f) => f.dataset.g === "1"), "group");
    group.value = ""; group.dispatchEvent(new Event("change"));
  }
  const cell = document.getElementById("cell");
  if (cell && cell.options.length > 1) {
    cell.value = "1"; cell.dispatchEvent(new Event("change"));
    check(all("[data-gantt]").filter(seen).map((g) => g.dataset.gantt).join() === "1", "timeline");
  }
  check(document.documentElement.scrollWidth <= window.innerWidth, "nothing is wider than " + window.innerWidth);
  document.title = "CHECKED " + found.length + ": " + found.join("; ");
})();
