// Plots, drawn by plotly when they come near the screen, with tables of their numbers.
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
const palette = () => [1, 2, 3, 4, 5, 6].map((n) => colour(`series-${n}`));
const symbols = ["circle", "square", "diamond", "triangle-up", "cross", "x"];
const dashes = ["solid", "dash", "dot", "dashdot"];
const escapes = { "&": "&amp;", "<": "&lt;", ">": "&gt;" };
const plain = (text) => String(text).replace(/[&<>]/g, (sign) => escapes[sign]); // plotly reads tags in texts

function axis(column, more = {}) {
  const lines = { gridcolor: colour("grid"), zerolinecolor: colour("grid"), linecolor: colour("line") };
  const format = { share: { tickformat: ".2~%" }, count: { tickformat: "~s" } }[column.kind] || {};
  return { title: { text: plain(column.label) }, automargin: true, ...lines, ...format, ...more };
}

function layout(x, y, more = {}) {
  const narrow = innerWidth < 600;
  return {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    font: { color: colour("text"), family: "system-ui, sans-serif", size: 13 },
    margin: { l: 48, r: 12, t: 12, b: 44 }, height: narrow ? 300 : 360,
    legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom" },
    hoverlabel: { bgcolor: colour("card"), bordercolor: colour("line"), font: { color: colour("text") } },
    dragmode: matchMedia("(pointer: coarse)").matches ? false : "zoom",
    xaxis: x, yaxis: y, ...more,
  };
}

const tail = (text, count) => (text.length > count ? `\u2026${text.slice(1 - count)}` : text);

const config = { displayModeBar: false, responsive: true };

// Plotly takes a second to start, so it does once the page can be read and a plot is to be drawn.
function start() {
  if (window.Plotly) return;
  const script = document.createElement("script");
  script.textContent = document.getElementById("plotly").textContent;
  document.head.append(script);
}

const drawn = new WeakSet();
function drawNow(element, width) {
  start();
  drawn.add(element);
  const [traces, look, more] = drawings.get(element)();
  Plotly.react(element, traces, { ...look, width }, { ...config, ...more });
}

// A plot that is drawn already is drawn again with the next frame, once for all that has changed by then.
const changed = new Set();
function draw(element) {
  if (!drawn.has(element)) return;
  if (!changed.size) requestAnimationFrame(redraw);
  changed.add(element);
}

function redraw() {
  const elements = [...changed];
  changed.clear();
  elements.forEach((element) => drawNow(element));
}

// A plot is drawn when it comes near the screen, those on it first, one at a time, so that each is shown before the next is
// worked on. What it shows stands in a table behind it.
const waiting = [];
const far = ({ boundingClientRect: { top, bottom } }) => Math.max(top - innerHeight, -bottom, 0);
const seen = new IntersectionObserver((entries) => {
  const near = entries.filter((entry) => entry.isIntersecting).sort((one, other) => far(one) - far(other));
  near.forEach((entry) => seen.unobserve(entry.target));
  if (waiting.push(...near.map((entry) => entry.target)) === near.length) drawWaiting();
}, { rootMargin: "300px" });

function drawWaiting() {
  const element = waiting.shift();
  if (waiting.length) requestAnimationFrame(() => setTimeout(drawWaiting));
  if (element && !drawn.has(element)) drawNow(element);
}

function place(caption, drawing) {
  const element = el("div", { class: "plot", role: "img", "aria-label": `${caption}; its numbers are in the table below` });
  drawings.set(element, drawing);
  return element;
}

function plot(block) {
  let shown = 0;
  const behind = el("div");
  const element = place(block.caption, () => traces(block, block.views[shown]));
  const views = block.views.map((view) => view.label);
  const details = el("details", { on: { toggle: fill } }, el("summary", {}, "Numbers"), behind);
  function fill() {
    if (details.open) behind.replaceChildren(table(numbers(block, block.views[shown])));
  }
  const picker = views.length < 2 ? null : choice("Show", views, (index) => {
    shown = index;
    draw(element);
    fill();
  });
  return el("figure", {}, el("figcaption", {}, block.caption), picker, element, details);
}

function traces(block, view) {
  const colours = palette();
  const made = view.series.map((series, n) => {
    const x = series.x || series.y.map((_, place) => place + 1);
    const names = (series.names || []).map(plain);
    const value = series.y.map((y) => plain(written(y, view.y.kind)));
    const at = x.map((each) => plain(written(each, block.x.kind)));
    const text = x.map((_, i) => [names[i] || at[i], names[i] && series.x ? at[i] : "", value[i]].filter(Boolean).join("<br>"));
    const known = { x, y: series.y, text, name: plain(series.name), hovertemplate: "%{text}<extra>%{fullData.name}</extra>" };
    const look = colours[n % colours.length];
    if (block.form === "bars") return { ...known, type: "bar", textposition: "none", marker: { color: look } };
    const alone = series.alone || block.form === "points" || series.y.length === 1;
    const bars = series.low && { type: "data", symmetric: false, color: look,
      array: series.y.map((y, i) => series.high[i] - y), arrayminus: series.y.map((y, i) => y - series.low[i]) };
    const mode = series.line ? "lines" : alone ? "markers" : "lines+markers";
    return { ...known, type: "scatter", mode, error_y: bars || undefined,
      line: { color: look, dash: dashes[n % dashes.length] },
      marker: { color: look, size: alone ? 11 : 5, symbol: symbols[n % symbols.length] } };
  });
  const names = block.form === "bars" ? view.series[0].names : null;
  const named = names && names.length <= 24 && innerWidth > 700;
  const ticks = named ? { tickvals: names.map((_, n) => n + 1), ticktext: names.map((name) => plain(tail(name, 24))), tickangle: -50 } : {};
  const x = axis(names && !named ? { label: `${block.x.label}, by number` } : block.x, ticks);
  const y = axis(view.y, view.y.log ? { type: "log" } : {});
  if (view.y.kind === "milliseconds") Object.assign(y, { ticksuffix: "s" });
  return [made, layout(x, y, { barmode: "group", showlegend: made.length > 1 })];
}

function numbers(block, view) {
  const one = view.series[0];
  if (block.form === "bars") {
    const columns = [block.x, ...view.series.map((series) => ({ label: series.name, kind: view.y.kind }))];
    return { caption: `${block.caption}: ${view.label}`, columns, rows: one.names.map((name, n) => [name, ...view.series.map((s) => s.y[n])]) };
  }
  const bounds = view.series.some((series) => series.low);
  const columns = [{ label: "series", kind: "text" }, ...(one.names ? [{ label: "name", kind: "text" }] : []), block.x, view.y];
  if (bounds) columns.push({ label: "low", kind: view.y.kind }, { label: "high", kind: view.y.kind });
  const rows = view.series.filter((series) => !series.line).flatMap((series) => series.y.map((y, n) => [
    series.name, ...(one.names ? [series.names[n]] : []), series.x[n], y,
    ...(bounds ? [series.low ? series.low[n] : null, series.high ? series.high[n] : null] : []),
  ]));
  return { caption: `${block.caption}: ${view.label}`, columns, rows };
}
