// Draws the page from its data. Text is set as text, never as markup; nothing is loaded from anywhere.
"use strict";
(() => {
  const page = JSON.parse(document.getElementById("data").textContent);
  const drawings = new Map(); // element of a plot -> function that draws it
  const chosen = new EventTarget(); // says which layer the reader looks at

  // --- elements

  function el(tag, attributes = {}, ...children) {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (name === "on") for (const [event, call] of Object.entries(value)) made.addEventListener(event, call);
      else if (value !== null && value !== false) made.setAttribute(name, value === true ? "" : value);
    }
    made.append(...children.filter((child) => child !== null));
    return made;
  }

  let numbered = 0;
  const fresh = (stem) => `${stem}-${++numbered}`;

  function labelled(label, control) {
    control.id = fresh("control");
    return el("span", { class: "control" }, el("label", { for: control.id }, label), control);
  }

  function choice(label, options, call) {
    const select = el("select", { on: { change: () => call(select.selectedIndex) } });
    select.append(...options.map((text) => el("option", {}, text)));
    return labelled(label, select);
  }

  // --- numbers

  function short(number) {
    for (const prefix of ["", "k", "M", "G"]) {
      if (Math.abs(number) < 999.5) return prefix ? digits(number, 3) + prefix : digits(number, 4);
      number /= 1000;
    }
    return `${digits(number, 3)}T`;
  }

  const fixed = (number, count) => (number ? number.toPrecision(count) : "0");
  const digits = (number, count) => String(Number(number.toPrecision(count)));

  function written(value, kind) {
    if (value === null || value === undefined) return "";
    if (typeof value !== "number") return String(value);
    if (kind === "count") return short(value);
    if (kind === "share") return `${fixed(100 * value, 3)} %`;
    if (kind === "ratio") return `${value.toFixed(2)}x`;
    if (kind === "milliseconds") return `${digits(1000 * value, 3)} ms`;
    return Number.isInteger(value) ? String(value) : fixed(value, 4);
  }

  // --- tables

  function table(block) {
    const body = el("tbody");
    const heads = block.columns.map((column, place) => {
      const button = el("button", { type: "button", on: { click: () => sort(place) } }, column.label);
      return el("th", { scope: "col", class: column.kind === "text" ? null : "number" }, button);
    });
    const rows = block.rows.map((values) => {
      const cells = values.map((value, place) => {
        const kind = block.columns[place].kind;
        const tag = place ? el("td") : el("th", { scope: "row" });
        if (kind !== "text") tag.className = "number";
        else if (String(value).length > 40) tag.className = "long";
        tag.textContent = written(value, kind);
        return tag;
      });
      return { values, element: el("tr", {}, ...cells) };
    });
    body.append(...rows.map((row) => row.element));
    let by = -1, falling = false;

    function sort(place) {
      falling = by === place && !falling;
      by = place;
      const sign = falling ? -1 : 1;
      const order = [...rows].sort((one, other) => {
        const [a, b] = [one.values[place], other.values[place]];
        if (a === null || b === null) return (a === null) - (b === null); // what is not known comes last
        if (typeof a === "number" && typeof b === "number") return sign * (a - b);
        return sign * String(a).localeCompare(String(b), "en", { numeric: true });
      });
      body.append(...order.map((row) => row.element));
      heads.forEach((head, n) => head.removeAttribute("aria-sort"));
      heads[place].setAttribute("aria-sort", falling ? "descending" : "ascending");
    }

    const caption = el("caption", {}, block.caption);
    const whole = el("table", {}, caption, el("thead", {}, el("tr", {}, ...heads)), body);
    const region = el("div", { class: "scroll", role: "region", "aria-label": block.caption, tabindex: 0 }, whole);
    if (!block.search) return region;

    const found = el("output", { "aria-live": "polite" });
    const tell = (count) => (found.textContent = `${count} of ${rows.length}`);
    const input = el("input", { type: "search", autocomplete: "off", on: { input: search } });
    function search() {
      const words = input.value.toLowerCase().split(/\s+/);
      let count = 0;
      for (const row of rows) {
        const text = row.element.textContent.toLowerCase() + row.values.join(" ").toLowerCase();
        row.element.hidden = !words.every((word) => text.includes(word));
        count += !row.element.hidden;
      }
      tell(count);
    }
    tell(rows.length);
    return el("div", {}, el("div", { class: "controls" }, labelled("Search", input), found), region);
  }

  // --- plots

  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
  const palette = () => [1, 2, 3, 4, 5, 6].map((n) => colour(`series-${n}`));
  const symbols = ["circle", "square", "diamond", "triangle-up", "cross", "x"];
  const dashes = ["solid", "dash", "dot", "dashdot"];
  const escapes = { "&": "&amp;", "<": "&lt;", ">": "&gt;" };
  const plain = (text) => String(text).replace(/[&<>]/g, (sign) => escapes[sign]); // plotly reads tags in texts

  function axis(column, more = {}) {
    const lines = { gridcolor: colour("grid"), zerolinecolor: colour("grid"), linecolor: colour("line") };
    const format = { share: { tickformat: ".0%" }, count: { tickformat: "~s" } }[column.kind] || {};
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

  const config = { displayModeBar: false, responsive: true };

  // Plotly takes a second to start, so it does once the page can be read and a plot is to be drawn.
  function start() {
    if (window.Plotly) return;
    const script = document.createElement("script");
    script.textContent = document.getElementById("plotly").textContent;
    document.head.append(script);
  }

  const drawn = new WeakSet();
  function draw(element, first = false) {
    if (!first && !drawn.has(element)) return;
    start();
    drawn.add(element);
    const [traces, look, more] = drawings.get(element)();
    Plotly.react(element, traces, look, { ...config, ...more });
  }

  // A plot is drawn when it comes near the screen; what it shows stands in a table behind it.
  const seen = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (entry.isIntersecting) {
        seen.unobserve(entry.target);
        draw(entry.target, true);
      }
    }
  }, { rootMargin: "300px" });

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
    const ticks = named ? { tickvals: names.map((_, n) => n + 1), ticktext: names.map((name) => plain(name).slice(-24)), tickangle: -50 } : {};
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

  // --- the strip of layers

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

  // --- spectra and ranks

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

  // --- the page

  function lines(block) {
    if (block.typed) return el("pre", { tabindex: 0 }, el("code", {}, block.lines.join("\n")));
    return el("ul", { class: "facts" }, ...block.lines.map((line) => el("li", {}, line)));
  }

  function figure(one) {
    const before = one.before === null ? "" : `${written(one.before, one.kind)} \u2192 `;
    const value = el("dd", { class: "value" }, before, el("strong", {}, written(one.after, one.kind) || "not known"));
    const more = [one.change, one.note].filter(Boolean).map((text) => el("dd", {}, text));
    return el("div", { class: "card" }, el("dt", {}, one.label), value, ...more);
  }

  // What stands between backticks is code.
  const marked = (text) => text.split("`").map((part, n) => (n % 2 ? el("code", {}, part) : part));

  function list(title, items, name) {
    if (!items.length) return null;
    return el("section", { class: `notes ${name}`, "aria-label": title }, el("h2", {}, title), el("ul", {}, ...items.map((item) => el("li", {}, ...marked(item)))));
  }

  const themes = ["auto", "light", "dark"];
  function theme(name) {
    document.documentElement.dataset.theme = name;
    for (const element of drawings.keys()) draw(element);
  }

  function build() {
    const kinds = { table, plot, strip, ranks, lines };
    const head = document.getElementById("head"), main = document.getElementById("main");
    const switcher = choice("Theme", ["as the system", "light", "dark"], (index) => theme(themes[index]));
    head.append(el("div", { class: "top" }, el("p", { class: "origin" }, page.origin), switcher), el("h1", {}, page.title), el("p", { class: "verdict" }, page.verdict));
    const cards = page.figures.length ? el("dl", { class: "cards" }, ...page.figures.map(figure)) : null;
    const sections = page.sections.map((section) => el("section", { id: section.id, "aria-labelledby": `${section.id}-title` },
      el("h2", { id: `${section.id}-title` }, section.title),
      section.text ? el("p", {}, section.text) : null,
      ...section.blocks.map((block) => kinds[block.type](block))));
    main.replaceChildren(...[cards, list("Warnings", page.warnings, "warnings"), ...sections, list("Not on this page", page.missing, "missing")].filter(Boolean));
    document.getElementById("contents").append(...page.sections.map((section) => el("a", { href: `#${section.id}` }, section.title)));
  }

  build();
  addEventListener("load", () => requestAnimationFrame(() => setTimeout(() => {
    for (const element of drawings.keys()) seen.observe(element);
  })));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => theme(document.documentElement.dataset.theme));
  addEventListener("beforeprint", () => {
    document.documentElement.classList.add("printed");
    for (const element of drawings.keys()) {
      draw(element, true);
      Plotly.relayout(element, { width: 680 });
    }
  });
  addEventListener("afterprint", () => {
    document.documentElement.classList.remove("printed");
    for (const element of drawings.keys()) Plotly.relayout(element, { width: null, autosize: true });
    theme(document.documentElement.dataset.theme);
  });
})();
