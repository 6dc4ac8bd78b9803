// Spectra, and ranks that can be moved.
function ranks(block) {
  if (!block.layers.length) return el("figure", {}, el("figcaption", {}, block.caption));
  let layer, at;
  const sliders = el("div", { class: "sliders" });
  const told = el("output", { "aria-live": "polite", class: "told" });
  const behind = el("div");
  const element = place(block.caption, drawing);
  const details = el("details", { on: { toggle: fill } }, el("summary", {}, "Numbers"), behind);
  const picker = choice("Layer", block.layers.map((one) => one.name), (index) => open(block.layers[index]));

  function between(bond, values, rank) {
    const next = bond.ranks.findIndex((each) => each >= rank);
    if (bond.ranks[next] === rank || next < 1) return values[Math.max(next, 0)];
    const part = (rank - bond.ranks[next - 1]) / (bond.ranks[next] - bond.ranks[next - 1]);
    return values[next - 1] + part * (values[next] - values[next - 1]);
  }

  const power = (stage, chosen) => stage.exponents.reduce((all, exponent, n) => all * chosen[n] ** exponent, 1);
  const cost = (what, chosen) => layer.stages.reduce((all, stage) => all + stage[what] * power(stage, chosen), 0);
  const bound = (chosen) => Math.min(1, Math.sqrt(layer.bonds.reduce((all, bond, n) => all + between(bond, bond.tails, chosen[n]), 0)));

  function tell() {
    const parts = ["parameters", "macs"].map((what) => {
      const own = cost(what, at), whole = block.totals[what];
      const all = whole[1] - layer[what][1] + own;
      const name = what === "macs" ? "MACs" : what;
      return `${name} ${short(own)} of ${short(layer[what][0])}, whole network ${short(all)} (${(whole[0] / all).toFixed(2)}x fewer)`;
    });
    const planned = at.every((rank, n) => rank === layer.ranks[n]) ? " (as planned)" : ` (planned ranks: ${written(bound(layer.ranks), "share")})`;
    told.textContent = `${block.error}: ${written(bound(at), "share")}${planned}; ${parts.join("; ")}`;
  }

  const bondName = (n) => (layer.bonds.length > 1 ? `rank ${n + 1}` : "rank");

  function set(n, rank, slide = true) {
    const most = layer.bonds[n].ranks.at(-1);
    at[n] = Math.min(Math.max(Math.round(rank) || 1, 1), most);
    const [input, value] = sliders.children[n].querySelectorAll("input, output");
    if (slide) input.value = at[n];
    input.setAttribute("aria-valuetext", `${at[n]} of ${most}, planned ${layer.ranks[n]}`);
    value.textContent = `${at[n]} of ${most}`;
    tell();
    draw(element);
  }

  function open(one) {
    layer = one;
    at = [...layer.ranks];
    picker.querySelector("select").selectedIndex = block.layers.indexOf(layer);
    sliders.replaceChildren(...layer.bonds.map((bond, n) => {
      const input = el("input", { type: "range", min: 1, max: bond.ranks.at(-1), step: 1, value: at[n], on: { input: () => set(n, Number(input.value), false) } });
      const control = labelled(bondName(n), input);
      control.append(el("output"));
      return control;
    }));
    layer.bonds.forEach((_, n) => set(n, at[n]));
    fill();
  }

  function drawing() {
    const colours = palette();
    const made = layer.bonds.map((bond, n) => ({
      type: "scatter", mode: "lines+markers", name: plain(bondName(n)), x: bond.ranks, y: bond.values.map((value) => Math.max(value, 1e-9)),
      line: { color: colours[n], dash: dashes[n % dashes.length] }, marker: { size: 4, symbol: symbols[n] },
      hovertemplate: "rank %{x}: %{y:.3g}<extra>%{fullData.name}</extra>",
    }));
    const shapes = at.map((rank, n) => ({
      type: "line", x0: rank, x1: rank, yref: "paper", y0: 0, y1: 1, editable: true,
      line: { color: colours[n], width: 3, dash: dashes[n % dashes.length] },
    }));
    const lowest = Math.max(1e-4, Math.min(...layer.bonds.flatMap((bond) => bond.values.filter((value) => value > 0))));
    const x = axis({ label: "rank" }, { range: [0, Math.max(...layer.bonds.map((bond) => bond.ranks.at(-1))) * 1.03] });
    const y = axis({ label: "singular value over the largest" }, { type: "log", range: [Math.log10(lowest) - 0.1, 0.1] });
    const look = layout(x, y, { shapes, dragmode: false, showlegend: made.length > 1 });
    setTimeout(listen);
    return [made, look, { edits: { shapePosition: true } }];
  }

  function listen() {
    if (!element.on || element.dataset.listens) return;
    element.dataset.listens = "yes";
    element.on("plotly_relayout", (changed) => {
      for (const [name, value] of Object.entries(changed)) {
        const moved = /^shapes\[(\d+)\]\.x0$/.exec(name);
        if (moved) set(Number(moved[1]), value);
      }
    });
  }

  function fill() {
    if (!details.open) return;
    const columns = [{ label: "bond", kind: "text" }, { label: "rank", kind: "number" }, { label: "singular value", kind: "number" }, { label: "share of the squared norm lost", kind: "share" }];
    const rows = layer.bonds.flatMap((bond, n) => bond.ranks.map((rank, i) => [bondName(n), rank, bond.values[i], bond.tails[i]]));
    behind.replaceChildren(table({ caption: `Spectra of ${layer.name}`, columns, rows }));
  }

  chosen.addEventListener("layer", (event) => {
    const found = block.layers.find((one) => one.name === event.detail);
    if (found) open(found);
  });
  const back = el("button", { type: "button", on: { click: () => open(layer) } }, "As planned");
  open(block.layers[0]);
  return el("figure", {}, el("figcaption", {}, block.caption), el("div", { class: "controls" }, picker, back), sliders, told, element, details);
}
