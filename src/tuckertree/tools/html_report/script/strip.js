// The strip of layers.
function strip(block) {
  let measure = 0, current = 0;
  const told = el("output", { "aria-live": "polite", class: "told" }, "No layer is chosen.");
  const scale = el("span", { class: "scale", "aria-hidden": "true" });
  const least = el("span"), most = el("span");
  const largest = Math.max(...block.widths, 1);
  const cells = block.names.map((name, n) => el("button", {
    type: "button", class: "layer", tabindex: n ? -1 : 0, "aria-pressed": "false", title: name,
    style: `width:${(24 + 28 * Math.sqrt(block.widths[n] / largest)).toFixed(1)}px`,
    on: { click: () => choose(n), focus: () => move(n) },
  }));

  function paint() {
    const { kind, label } = block.measures[measure], values = block.values[measure];
    const known = values.filter((value) => value !== null);
    const top = Math.max(...known, 1e-12), low = Math.min(0, ...known);
    cells.forEach((cell, n) => {
      const value = values[n], part = Math.round((100 * (value - low)) / (top - low || 1));
      cell.style.background = value === null ? "" : `color-mix(in oklab, var(--hot) ${part}%, var(--cold))`;
      cell.classList.toggle("none", value === null);
      cell.setAttribute("aria-label", `${block.names[n]}: ${label} ${value === null ? "none" : written(value, kind)}`);
    });
    least.textContent = written(low, kind);
    most.textContent = written(top, kind);
  }

  function move(n) {
    cells[current].tabIndex = -1;
    cells[(current = n)].tabIndex = 0;
  }

  function choose(n) {
    cells.forEach((cell, place) => cell.setAttribute("aria-pressed", String(place === n)));
    const values = block.measures.map((one, m) => (block.values[m][n] === null ? "" : `${one.label} ${written(block.values[m][n], one.kind)}`));
    told.textContent = [`${block.names[n]}: ${block.notes[n]}`, ...values.filter(Boolean)].join("; ");
    chosen.dispatchEvent(new CustomEvent("layer", { detail: block.names[n] }));
  }

  const bar = el("div", { class: "strip", role: "toolbar", "aria-label": block.caption, on: { keydown: (event) => {
    const to = { ArrowRight: current + 1, ArrowLeft: current - 1, Home: 0, End: cells.length - 1 }[event.key];
    if (to === undefined || !cells[to]) return;
    event.preventDefault();
    cells[to].focus();
  } } }, ...cells);
  const picker = choice("Coloured by", block.measures.map((one) => one.label), (index) => { measure = index; paint(); });
  paint();
  const legend = el("p", { class: "legend" }, least, scale, most);
  if (block.values.flat().includes(null)) legend.append(el("span", { class: "layer none", "aria-hidden": "true" }), "not compressed");
  return el("figure", {}, el("figcaption", {}, block.caption), picker, bar, legend, told);
}
