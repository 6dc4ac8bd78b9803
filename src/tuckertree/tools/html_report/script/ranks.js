// Spectra, or errors at the ranks on offer, and ranks that can be moved.
function ranks(block) {
  if (!block.layers.length) return el("figure", {}, el("figcaption", {}, block.caption));
  let layer, at;
  const sliders = el("div", { class: "sliders" });
  const told = el("output", { "aria-live": "polite", class: "told" });
  const behind = el("div");
  const element = place(block.caption, drawing);
  const details = el("details", { on: { toggle: fill } }, el("summary", {}, "Numbers"), behind);
  const picker = choice("Layer", block.layers.map((one) => one.name), (index) => open(block.layers[index]));

  // What each rank moves along: any rank of a spectrum, of a method without one those on offer.
  const rows = () => (layer.offered ? [layer.offered] : layer.bonds);

  function between(bond, values, rank) {
    const next = bond.ranks.findIndex((each) => each >= rank);
    if (bond.ranks[next] === rank || next < 1) return values[Math.max(next, 0)];
    const part = (rank - bond.ranks[next - 1]) / (bond.ranks[next] - bond.ranks[next - 1]);
    return values[next - 1] + part * (values[next] - values[next - 1]);
  }

  const power = (stage, chosen) => stage.exponents.reduce((all, exponent, n) => all * chosen[n] ** exponent, 1);
  const cost = (what, chosen) => layer.stages.reduce((all, stage) => all + stage[what] * power(stage, chosen), 0);
  const bound = (chosen) => Math.min(1, Math.sqrt(rows().reduce((all, row, n) => all + between(row, row.tails || row.squared, chosen[n]), 0)));

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

  const rankName = (n) => (rows().length > 1 ? `rank ${n + 1}` : "rank");

  // Places of a slider: the ranks themselves, or their numbers among those on offer.
  const toPlace = (rank) => (layer.offered ? layer.offered.ranks.indexOf(rank) : rank);
  const fromPlace = (place) => (layer.offered ? layer.offered.ranks[place] : place);

  function allowed(n, rank) {
    const { ranks } = rows()[n];
    if (!layer.offered) return Math.min(Math.max(Math.round(rank) || 1, 1), ranks.at(-1));
    return ranks.reduce((best, each) => (Math.abs(each - rank) < Math.abs(best - rank) ? each : best));
  }

  function set(n, rank, slide = true) {
    const most = rows()[n].ranks.at(-1);
    at[n] = allowed(n, rank);
    const [input, value] = sliders.children[n].querySelectorAll("input, output");
    if (slide) input.value = toPlace(at[n]);
    input.setAttribute("aria-valuetext", `${at[n]} of ${most}, planned ${layer.ranks[n]}`);
    value.textContent = `${at[n]} of ${most}`;
    tell();
    draw(element);
  }

  function open(one) {
    layer = one;
    at = [...layer.ranks];
    picker.querySelector("select").selectedIndex = block.layers.indexOf(layer);
    sliders.replaceChildren(...rows().map((row, n) => {
      const input = el("input", { type: "range", min: layer.offered ? 0 : 1, max: toPlace(row.ranks.at(-1)), step: 1, value: toPlace(at[n]),
        on: { input: () => set(n, fromPlace(Number(input.value)), false) } });
      const control = labelled(rankName(n), input);
      control.append(el("output"));
      return control;
    }));
    rows().forEach((_, n) => set(n, at[n]));
    fill();
  }

  function drawing() {
    const colours = palette();
    const made = rows().map((row, n) => ({
      type: "scatter", mode: "lines+markers", name: plain(rankName(n)), x: row.ranks,
      y: row.values ? row.values.map((value) => Math.max(value, 1e-9)) : row.squared.map(Math.sqrt),
      line: { color: colours[n], dash: dashes[n % dashes.length] }, marker: { size: row.values ? 4 : 8, symbol: symbols[n] },
      hovertemplate: `rank %{x}: %{y:${row.values ? ".3g" : ".3p"}}<extra>%{fullData.name}</extra>`,
    }));
    const shapes = at.map((rank, n) => ({
      type: "line", x0: rank, x1: rank, yref: "paper", y0: 0, y1: 1, editable: true,
      line: { color: colours[n], width: 3, dash: dashes[n % dashes.length] },
    }));
    const x = axis({ label: "rank" }, { range: [0, Math.max(...rows().map((row) => row.ranks.at(-1))) * 1.03] });
    const lowest = Math.max(1e-4, Math.min(...layer.bonds.flatMap((bond) => bond.values.filter((value) => value > 0))));
    const y = layer.offered
      ? axis({ label: "error", kind: "share" }, { rangemode: "tozero" })
      : axis({ label: "singular value over the largest" }, { type: "log", range: [Math.log10(lowest) - 0.1, 0.1] });
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
    behind.replaceChildren(table(layer.offered ? triedTable() : spectraTable()));
  }

  function spectraTable() {
    const columns = [{ label: "bond", kind: "text" }, { label: "rank", kind: "number" }, { label: "singular value", kind: "number" }, { label: "share of the squared norm lost", kind: "share" }];
    const found = layer.bonds.flatMap((bond, n) => bond.ranks.map((rank, i) => [rankName(n), rank, bond.values[i], bond.tails[i]]));
    return { caption: `Spectra of ${layer.name}`, columns, rows: found };
  }

  function triedTable() {
    const columns = [{ label: "rank", kind: "number" }, { label: "error", kind: "share" }, { label: "parameters", kind: "count" }, { label: "MACs", kind: "count" }];
    const { ranks, squared } = layer.offered;
    const found = ranks.map((rank, i) => [rank, Math.sqrt(squared[i]), cost("parameters", [rank]), cost("macs", [rank])]);
    return { caption: `${layer.name} by ${layer.method}: the ranks on offer`, columns, rows: found };
  }

  chosen.addEventListener("layer", (event) => {
    const found = block.layers.find((one) => one.name === event.detail);
    if (found) open(found);
  });
  const back = el("button", { type: "button", on: { click: () => open(layer) } }, "As planned");
  open(block.layers[0]);
  return el("figure", {}, el("figcaption", {}, block.caption), el("div", { class: "controls" }, picker, back), sliders, told, element, details);
}
