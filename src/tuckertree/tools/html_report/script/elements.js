// Elements and numbers. Text is set as text, never as markup.
const page = JSON.parse(document.getElementById("data").textContent);
const drawings = new Map(); // element of a plot -> function that draws it
const chosen = new EventTarget(); // says which layer the reader looks at

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
