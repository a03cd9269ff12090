"use strict";

/* The data, and how elements are made: every text goes through text nodes, so none can become markup. */

const DATA = JSON.parse(document.getElementById("data").textContent);
const SVG = "http://www.w3.org/2000/svg";

function build(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "on") for (const [event, run] of Object.entries(value)) node.addEventListener(event, run);
    else if (value !== null && value !== undefined && value !== false)
      node.setAttribute(name, value === true ? "" : value);
  }
  for (const child of children.flat(Infinity)) {
    if (child !== null && child !== undefined && child !== "") node.append(child);
  }
  return node;
}

const el = (tag, attributes = {}, ...children) => build(document.createElement(tag), attributes, children);
const svg = (tag, attributes = {}, ...children) => build(document.createElementNS(SVG, tag), attributes, children);

/* A field with its label; ids are numbered, as a label needs one. */
let fields = 0;
function labelled(text, field) {
  field.id = `field-${(fields += 1)}`;
  return el("span", { class: "field" }, el("label", { for: field.id }, text), field);
}

function choice(label, options, chosen, change) {
  const select = el("select", { on: { change: () => change(select.value) } });
  for (const [value, text] of options)
    select.append(el("option", { value, selected: String(value) === String(chosen) }, text));
  return labelled(label, select);
}

/* A box that scrolls sideways on its own, by keyboard too. */
const scrolling = (label, ...children) =>
  el("div", { class: "scroll", role: "region", tabindex: 0, "aria-label": label }, ...children);

const dl = (pairs) =>
  el(
    "dl",
    {},
    pairs.map(([name, text]) => el("div", {}, el("dt", {}, name), el("dd", {}, text))),
  );

/* --- numbers as a person reads them ------------------------------------------------------------------------------ */

const formOf = (name) => DATA.metrics[name] ?? { label: name, form: "plain", lower: false };

function metricText(name, value) {
  if (value === null || value === undefined) return "–";
  const { form } = formOf(name);
  return form === "percent"
    ? (100 * value).toFixed(1)
    : form === "fraction"
      ? value.toFixed(3)
      : String(Number(value.toPrecision(4)));
}

/* An address holds whole characters only. */
const whole = (text) => String(text).toWellFormed();

const unitOf = (name) => (formOf(name).form === "percent" ? " (%)" : "");

function intervalText(name, [, low, high]) {
  return low === null || high === null ? "" : `${metricText(name, low)}–${metricText(name, high)}`;
}

function compact(value) {
  for (const [size, unit] of [
    [1e9, "G"],
    [1e6, "M"],
    [1e3, "k"],
  ]) {
    if (value >= size) return Number((value / size).toPrecision(3)) + unit;
  }
  return String(Number(value.toPrecision(3)));
}

function secondsText(value) {
  if (value === 0) return "0 s";
  if (value < 0.1) return `${Number(value.toPrecision(1))} s`;
  if (value < 60) return `${Number(value.toFixed(1))} s`;
  if (value < 3600) return `${Number((value / 60).toFixed(1))} min`;
  return `${Number((value / 3600).toFixed(1))} h`;
}

const scoreText = (value) => String(Number(value.toPrecision(4))).replace("-", "−");
function bytesText(value) {
  return value >= 1e9
    ? `${Number((value / 1e9).toPrecision(3))} GB`
    : value
      ? `${Number((value / 1e6).toPrecision(3))} MB`
      : "0";
}

const many = (count, word) => `${count.toLocaleString("en")} ${word}${count === 1 ? "" : "s"}`;

/* --- groups: what is ranked together ------------------------------------------------------------------------------ */

const KINDS = {
  labeler: "labelers",
  prm: "PRMs",
  "generative prm": "generative PRMs",
  critic: "critics",
  baseline: "baselines",
};
const groupOf = (row) => row.kind + (row.reference ? "*" : "");
const groupName = (row) => (KINDS[row.kind] ?? row.kind) + (row.reference ? ", given the reference answer *" : "");
const scorerName = (row) => row.scorer + (row.reference ? "*" : "") + (row.settings ? ` ${row.settings}` : "");
