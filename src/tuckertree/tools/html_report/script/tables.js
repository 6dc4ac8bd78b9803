// Tables that are sorted and searched.
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
