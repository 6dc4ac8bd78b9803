// The page, from its data; nothing is loaded from anywhere.
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
  for (const element of drawings.keys()) drawNow(element, 680);
});
addEventListener("afterprint", () => {
  document.documentElement.classList.remove("printed");
  theme(document.documentElement.dataset.theme);
});
