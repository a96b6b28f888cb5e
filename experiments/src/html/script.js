"use strict";
// Places in the arrays of DATA; `run_data` of html/mod.rs writes them.
const P = 0, LANE = 1, FROM = 2, TO = 3, LIFE = 4, VARIANT = 5, FIRST = 6, LAST = 7, ENERGY = 8, FAILURE = 9;
const ID = 0, STREAM = 1, RLANE = 2, ARRIVAL = 3, DEADLINE = 4, END = 5, OUTCOME = 6, RVARIANT = 7, UTILITY = 8;
const byId = (id) => document.getElementById(id);
const chart = byId("chart"), pen = chart.getContext("2d"), tip = byId("tip");
const LABEL = 92, AXIS = 24, BAR = 24, LIFE_ROW = 9, LIFE_LANES = 8, GAP = 8;
const longest = Math.max(1, ...DATA.runs.map((r) => r.end));
let current = 0, from = 0, to = Math.min(longest, 1500), pointed = null, rows = [];

const colourOf = (task) => DATA.tasks[task].colour;
const theme = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const missed = (r) => r[OUTCOME] !== "on time";
const mark = (outcome) => (outcome === "late" ? "--late" : "--lost");

function layout() {
  const run = DATA.runs[current];
  rows = [];
  let y = AXIS + 4;
  const add = (kind, index, name, lanes, height) => {
    rows.push({ kind, index, name, lanes, height, y });
    y += lanes * height + GAP;
  };
  DATA.processors.forEach((name, i) => add("processor", i, name, run.processorLanes[i], BAR));
  y += 6;
  DATA.streams.forEach((s, i) => add("stream", i, s.name, Math.min(LIFE_LANES, Math.max(2, run.streamLanes[i])), LIFE_ROW));
  return y;
}

const width = () => chart.clientWidth;
const x = (t) => LABEL + ((t - from) / (to - from)) * (width() - LABEL);
const time = (px) => from + ((px - LABEL) / (width() - LABEL)) * (to - from);

function steps() {
  const rough = (to - from) / Math.max(2, (width() - LABEL) / 90);
  const ten = 10 ** Math.floor(Math.log10(rough));
  return [1, 2, 5, 10].map((f) => f * ten).find((s) => s >= rough);
}

// The first index whose value is at least `value`, in a list sorted by it.
function lower(list, place, value) {
  let a = 0, b = list.length;
  while (a < b) { const m = (a + b) >> 1; if (list[m][place] < value) a = m + 1; else b = m; }
  return a;
}

function draw() {
  const run = DATA.runs[current], height = layout(), ratio = window.devicePixelRatio || 1;
  chart.style.height = height + "px";
  chart.width = Math.round(width() * ratio);
  chart.height = Math.round(height * ratio);
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  pen.font = "12px system-ui, 'DejaVu Sans', sans-serif";
  pen.textBaseline = "middle";
  const ink = theme("--ink"), soft = theme("--soft"), line = theme("--line"), lane = theme("--lane");
  pen.fillStyle = lane;
  for (const row of rows) pen.fillRect(LABEL, row.y, width() - LABEL, row.lanes * row.height);
  drawAxis(height, soft, line);
  pen.save();
  pen.beginPath(); pen.rect(LABEL, 0, width() - LABEL, height); pen.clip();
  drawLaunches(run);
  drawRequests(run);
  drawHealth(run);
  if (pointed) drawPointed(run, height, ink);
  pen.restore();
  for (const row of rows) {
    pen.fillStyle = row.kind === "processor" ? ink : soft;
    pen.textAlign = "right";
    let name = row.name;
    while (name.length > 3 && pen.measureText(name).width > LABEL - 14) name = name.slice(0, -2) + "…";
    pen.fillText(name, LABEL - 8, row.y + (row.lanes * row.height) / 2);
  }
}

function drawAxis(height, soft, line) {
  const step = steps();
  pen.textAlign = "center";
  for (let t = Math.ceil(from / step) * step; t <= to; t += step) {
    const px = Math.round(x(t)) + 0.5;
    pen.strokeStyle = line;
    pen.beginPath(); pen.moveTo(px, AXIS); pen.lineTo(px, height); pen.stroke();
    pen.fillStyle = soft;
    const label = step >= 100 ? (t / 1000).toFixed(step >= 1000 ? 0 : 1) + " s" : +t.toFixed(3) + " ms";
    if (px > LABEL + 18 && px < width() - 22) pen.fillText(label, px, AXIS / 2);
  }
}

function drawLaunches(run) {
  for (const l of run.launches) {
    if (l[TO] < from || l[FROM] > to) continue;
    const row = rows[l[P]], variant = DATA.variants[l[VARIANT]], r = run.requests[l[LIFE]];
    const left = x(l[FROM]), w = Math.max(1, x(l[TO]) - left), y = row.y + l[LANE] * BAR + 2, h = BAR - 4;
    // A variant below the best is paler: accuracy was given away.
    pen.globalAlpha = variant.best ? 1 : 0.55;
    pen.fillStyle = colourOf(variant.task);
    pen.fillRect(left, y, Math.max(1, w - (w > 4 ? 1 : 0)), h);
    pen.globalAlpha = 1;
    if (l[FAILURE] !== null) cross(left + w / 2, y + h / 2, 6, theme("--lost"));
    else if (r && missed(r) && w > 2) { pen.fillStyle = theme(mark(r[OUTCOME])); pen.fillRect(left, y + h - 4, Math.max(1, w - 1), 4); }
    if (w > 46) {
      pen.fillStyle = "#fff"; pen.textAlign = "left";
      const name = variant.name + (l[FIRST] === 0 && l[LAST] === variant.segments - 1 ? "" : " " + l[FIRST] + "–" + l[LAST]);
      pen.save(); pen.beginPath(); pen.rect(Math.max(left, LABEL), y, left + w - Math.max(left, LABEL) - 4, h); pen.clip();
      pen.fillText(name, Math.max(left, LABEL) + 5, y + h / 2); pen.restore();
    }
  }
}

function drawRequests(run) {
  const base = DATA.processors.length;
  for (const r of run.requests) {
    if (r[END] < from || r[ARRIVAL] > to) continue;
    const row = rows[base + r[STREAM]], y = row.y + (r[RLANE] % row.lanes) * LIFE_ROW + 2, h = LIFE_ROW - 4;
    const left = x(r[ARRIVAL]), right = x(r[END]), due = Math.min(right, Math.max(left, x(r[DEADLINE])));
    pen.globalAlpha = 0.75;
    pen.fillStyle = colourOf(DATA.streams[r[STREAM]].task);
    pen.fillRect(left, y, Math.max(1, due - left), h);
    pen.globalAlpha = 1;
    if (!missed(r)) continue;
    const colour = theme(mark(r[OUTCOME]));
    pen.fillStyle = colour;
    pen.fillRect(due, y, Math.max(1, right - due), h);
    if (r[OUTCOME] !== "late") cross(right, y + h / 2, 4, colour);
  }
}

function drawHealth(run) {
  for (const [p, at, up] of run.health) {
    const row = rows[p];
    if (up) continue;
    const back = run.health.find((h) => h[0] === p && h[1] > at && h[2]);
    const right = x(back ? back[1] : run.end);
    pen.globalAlpha = 0.25; pen.fillStyle = theme("--lost");
    pen.fillRect(x(at), row.y, right - x(at), row.lanes * row.height);
    pen.globalAlpha = 1;
  }
}

function drawPointed(run, height, ink) {
  const r = run.requests[pointed.life];
  if (!r) return;
  pen.strokeStyle = ink; pen.lineWidth = 2;
  for (const l of run.launches) {
    if (l[LIFE] !== pointed.life) continue;
    pen.strokeRect(x(l[FROM]) - 1, rows[l[P]].y + l[LANE] * BAR + 1, Math.max(2, x(l[TO]) - x(l[FROM])) + 1, BAR - 2);
  }
  pen.lineWidth = 1;
  for (const [t, dash] of [[r[ARRIVAL], []], [r[DEADLINE], [4, 4]]]) {
    pen.setLineDash(dash);
    pen.beginPath(); pen.moveTo(x(t), AXIS); pen.lineTo(x(t), height); pen.stroke();
  }
  pen.setLineDash([]);
}

function cross(cx, cy, size, colour) {
  pen.strokeStyle = colour; pen.lineWidth = 2.2;
  pen.beginPath();
  pen.moveTo(cx - size, cy - size); pen.lineTo(cx + size, cy + size);
  pen.moveTo(cx + size, cy - size); pen.lineTo(cx - size, cy + size);
  pen.stroke(); pen.lineWidth = 1;
}

function at(px, py) {
  const run = DATA.runs[current], t = time(px), slack = (to - from) / width() * 3;
  const row = rows.find((r) => py >= r.y && py < r.y + r.lanes * r.height);
  if (!row || px < LABEL) return null;
  const lane = Math.floor((py - row.y) / row.height);
  if (row.kind === "processor") {
    const l = run.launches.find((l) => l[P] === row.index && l[LANE] === lane && l[FROM] - slack <= t && t <= l[TO] + slack);
    return l ? { life: l[LIFE], launch: l } : null;
  }
  const life = run.requests.findIndex((r) => r[STREAM] === row.index && r[RLANE] % row.lanes === lane && r[ARRIVAL] - slack <= t && t <= r[END] + slack);
  return life < 0 ? null : { life, launch: null };
}

function describe(hit) {
  const run = DATA.runs[current], r = run.requests[hit.life], out = [], f = (v) => (v < 10 ? v.toFixed(2) : v.toFixed(1)) + " ms";
  if (hit.launch) {
    const l = hit.launch, v = DATA.variants[l[VARIANT]];
    out.push(DATA.processors[l[P]] + ": " + v.name + ", segments " + l[FIRST] + "–" + l[LAST] + " of " + v.segments);
    out.push("ran " + f(l[TO] - l[FROM]) + ", " + l[ENERGY].toFixed(1) + " mJ" + (l[FAILURE] !== null ? ", failed: " + l[FAILURE] : ""));
  }
  if (r) {
    out.push("request " + r[ID] + " of " + DATA.streams[r[STREAM]].name + ", arrived at " + f(r[ARRIVAL]));
    const spare = r[DEADLINE] - r[END];
    out.push(r[OUTCOME] + " after " + f(r[END] - r[ARRIVAL]) + "; deadline after " + f(r[DEADLINE] - r[ARRIVAL]) +
      (spare >= 0 ? " (" + f(spare) + " to spare)" : " (missed by " + f(-spare) + ")"));
    if (r[RVARIANT] !== null) out.push("variant " + DATA.variants[r[RVARIANT]].name + ", accuracy " + DATA.variants[r[RVARIANT]].accuracy);
    if (r[UTILITY] !== null) out.push("utility " + r[UTILITY]);
  }
  return out.join("\n");
}

function point(event) {
  const box = chart.getBoundingClientRect(), hit = at(event.clientX - box.left, event.clientY - box.top);
  const changed = (hit && hit.life) !== (pointed && pointed.life) || (hit && hit.launch) !== (pointed && pointed.launch);
  pointed = hit;
  tip.hidden = !hit;
  if (hit) {
    tip.textContent = describe(hit);
    const w = tip.offsetWidth, h = tip.offsetHeight;
    tip.style.left = Math.max(4, Math.min(event.clientX + 14, innerWidth - w - 8)) + "px";
    tip.style.top = (event.clientY + h + 24 > innerHeight ? event.clientY - h - 12 : event.clientY + 16) + "px";
  }
  if (changed) draw();
}

function view(a, b) {
  const span = Math.min(longest * 1.02, Math.max(2, b - a)), start = Math.max(-0.01 * longest, Math.min(a, longest * 1.01 - span));
  from = start; to = start + span;
  draw();
}
const zoom = (factor, centre = (from + to) / 2) => view(centre - (centre - from) * factor, centre + (to - centre) * factor);
const pan = (share) => view(from + share * (to - from), to + share * (to - from));

function nextMiss() {
  const list = DATA.runs[current].requests.filter(missed).sort((a, b) => a[END] - b[END]);
  if (!list.length) return;
  const centre = (from + to) / 2 + (to - from) / 1e4;
  const next = list[lower(list, END, centre)] || list[0], half = (to - from) / 2;
  view(next[END] - half, next[END] + half);
}

const fingers = new Map();
let moved = null;
chart.addEventListener("pointerdown", (e) => { fingers.set(e.pointerId, e.clientX); chart.setPointerCapture(e.pointerId); moved = { x: e.clientX, from, to }; point(e); });
chart.addEventListener("pointermove", (e) => {
  if (!fingers.has(e.pointerId)) return point(e);
  const before = [...fingers.values()];
  fingers.set(e.pointerId, e.clientX);
  const now = [...fingers.values()];
  if (now.length === 2) {
    const apart = (v) => Math.max(8, Math.abs(v[0] - v[1])), box = chart.getBoundingClientRect();
    zoom(apart(before) / apart(now), time((now[0] + now[1]) / 2 - box.left));
  } else if (moved) {
    const shift = ((moved.x - e.clientX) / (width() - LABEL)) * (moved.to - moved.from);
    view(moved.from + shift, moved.to + shift);
  }
});
const release = (e) => { fingers.delete(e.pointerId); moved = null; };
chart.addEventListener("pointerup", release);
chart.addEventListener("pointercancel", release);
chart.addEventListener("pointerleave", () => { pointed = null; tip.hidden = true; draw(); });
chart.addEventListener("dblclick", (e) => zoom(0.5, time(e.clientX - chart.getBoundingClientRect().left)));
chart.addEventListener("wheel", (e) => {
  if (e.ctrlKey || e.metaKey) { e.preventDefault(); zoom(Math.exp(e.deltaY * 0.002), time(e.clientX - chart.getBoundingClientRect().left)); }
  else if (e.shiftKey || Math.abs(e.deltaX) > Math.abs(e.deltaY)) { e.preventDefault(); pan((e.deltaX || e.deltaY) / width()); }
}, { passive: false });
chart.addEventListener("keydown", (e) => {
  const keys = { ArrowLeft: () => pan(-0.2), ArrowRight: () => pan(0.2), "+": () => zoom(0.6), "=": () => zoom(0.6), "-": () => zoom(1.7), "0": () => view(0, longest) };
  if (keys[e.key]) { e.preventDefault(); keys[e.key](); }
});
byId("in").onclick = () => zoom(0.5);
byId("out").onclick = () => zoom(2);
byId("left").onclick = () => pan(-0.5);
byId("right").onclick = () => pan(0.5);
byId("all").onclick = () => view(0, longest);
byId("miss").onclick = nextMiss;

DATA.runs.forEach((run, i) => {
  const button = document.createElement("button");
  button.textContent = run.name;
  button.onclick = () => {
    current = i; pointed = null;
    [...byId("runs").children].forEach((b, j) => b.setAttribute("aria-pressed", j === i));
    draw();
  };
  button.setAttribute("aria-pressed", i === 0);
  byId("runs").append(button);
});

function legendItem(colour, text) {
  const item = document.createElement("span"), dot = document.createElement("i");
  dot.className = "dot"; dot.style.background = colour;
  item.append(dot, text);
  byId("legend").append(item);
}
const asked = new Set(DATA.streams.map((s) => s.task));
DATA.tasks.forEach((t, i) => { if (asked.has(i)) legendItem(t.colour, t.name); });
legendItem("var(--late)", "late");
legendItem("var(--lost)", "dropped, expired or failed (×)");
if (DATA.variants.some((v) => !v.best)) legendItem("color-mix(in srgb, var(--soft) 45%, transparent)", "pale: less accurate variant");

const RUN_COLOURS = ["#4477d6", "#e08a1e", "#2aa37a", "#b65fc4", "#d65a7a", "#3aa6c4", "#7d8b99"];
const svg = (name, attributes, text) => {
  const node = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const key in attributes) node.setAttribute(key, attributes[key]);
  if (text !== undefined) node.textContent = text;
  return node;
};

function curve(task) {
  const W = 360, H = 190, L = 38, B = 24, T = 8, R = 10;
  const streams = DATA.streams.map((s, i) => [s, i]).filter(([s]) => s.task === task);
  const deadline = Math.max(...streams.map(([s]) => s.deadline));
  const curves = DATA.runs.map((run) => {
    const all = run.requests.filter((r) => DATA.streams[r[STREAM]].task === task);
    const latencies = all.filter((r) => r[OUTCOME] === "on time" || r[OUTCOME] === "late").map((r) => r[END] - r[ARRIVAL]).sort((a, b) => a - b);
    return { latencies, count: all.length };
  });
  const longestLatency = Math.max(deadline * 1.15, ...curves.map((c) => c.latencies.at(-1) || 0));
  const ten = 10 ** Math.floor(Math.log10(longestLatency / 4));
  const step = [1, 2, 2.5, 5, 10].map((f) => f * ten).find((s) => s * 4 >= longestLatency);
  const most = Math.max(longestLatency, step * Math.ceil(longestLatency / step)) * 1.001;
  const px = (v) => L + (v / most) * (W - L - R), py = (share) => T + (1 - share) * (H - T - B);
  const figure = document.createElement("figure"), caption = document.createElement("figcaption");
  caption.textContent = DATA.tasks[task].name;
  const picture = svg("svg", { viewBox: `0 0 ${W} ${H}`, role: "img" });
  for (const share of [0, 0.5, 1]) {
    picture.append(svg("line", { x1: L, x2: W - R, y1: py(share), y2: py(share), stroke: "var(--line)" }));
    picture.append(svg("text", { x: L - 5, y: py(share) + 4, "text-anchor": "end" }, share * 100 + " %"));
  }
  for (let v = 0; v <= most; v += step) {
    const last = v + step > most;
    picture.append(svg("text", { x: px(v), y: H - 7, "text-anchor": last ? "end" : "middle" }, +v.toFixed(3) + (last ? " ms" : "")));
  }
  for (const [s] of streams) picture.append(svg("line", { x1: px(s.deadline), x2: px(s.deadline), y1: T, y2: H - B, stroke: "var(--soft)", "stroke-dasharray": "4 4" }));
  curves.forEach(({ latencies, count }, i) => {
    let d = `M${px(0)} ${py(0)}`;
    latencies.forEach((v, k) => { d += `H${px(v).toFixed(1)}V${py((k + 1) / count).toFixed(1)}`; });
    d += `H${px(most)}`;
    picture.append(svg("path", { d, fill: "none", stroke: RUN_COLOURS[i % RUN_COLOURS.length], "stroke-width": 2, "stroke-linejoin": "round" }));
  });
  figure.append(caption, picture);
  byId("curves").append(figure);
}
asked.forEach(curve);
{
  const key = document.createElement("p");
  key.className = "hint";
  DATA.runs.forEach((run, i) => {
    const dot = document.createElement("i"), item = document.createElement("span");
    dot.className = "dot"; dot.style.background = RUN_COLOURS[i % RUN_COLOURS.length];
    item.style.marginRight = "18px";
    item.append(dot, run.name);
    key.append(item);
  });
  byId("curves").before(key);
}
window.addEventListener("resize", draw);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
draw();
