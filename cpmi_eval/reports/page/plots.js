/* The plots of a run, and the axes that all plots share. */

/* Axes with grid lines: ticks are pairs of a position and a text. */
function axes(box, xTicks, yTicks, xLabel, yLabel) {
  const middle = (box.top + box.bottom) / 2;
  return svg(
    "g",
    { class: "axes", "aria-hidden": "true" },
    yTicks.map(([at, text]) => [
      svg("path", { class: "grid", d: `M${box.left} ${at}H${box.right}` }),
      svg("text", { x: box.left - 6, y: at + 4, "text-anchor": "end" }, text),
    ]),
    xTicks.map(([at, text]) => [
      svg("path", { class: "tick", d: `M${at} ${box.bottom}v5` }),
      svg("text", { x: at, y: box.bottom + 18, "text-anchor": "middle" }, text),
    ]),
    svg("path", { class: "axis", d: `M${box.left} ${box.top}V${box.bottom}H${box.right}` }),
    svg("text", { x: (box.left + box.right) / 2, y: box.bottom + 38, "text-anchor": "middle" }, xLabel),
    svg("text", { transform: `translate(13 ${middle}) rotate(-90)`, "text-anchor": "middle" }, yLabel),
  );
}

const UNIT = [0, 0.2, 0.4, 0.6, 0.8, 1];
const PLOT = { width: 340, height: 300, box: { left: 50, right: 330, top: 10, bottom: 254 } };
const across = (value) => PLOT.box.left + value * (PLOT.box.right - PLOT.box.left);
const upward = (value) => PLOT.box.bottom - value * (PLOT.box.bottom - PLOT.box.top);

function unitPlot(label, xLabel, yLabel, ...children) {
  const xTicks = UNIT.map((tick) => [across(tick), String(tick)]);
  const yTicks = UNIT.map((tick) => [upward(tick), String(tick)]);
  const diagonal = svg("path", { class: "diagonal", d: `M${across(0)} ${upward(0)}L${across(1)} ${upward(1)}` });
  return svg(
    "svg",
    { viewBox: `0 0 ${PLOT.width} ${PLOT.height}`, role: "img", "aria-label": label },
    axes(PLOT.box, xTicks, yTicks, xLabel, yLabel),
    diagonal,
    children,
  );
}

const fixed = (value) => (value === null ? "–" : value.toFixed(3));
const figureOf = (title, ...children) => el("figure", { class: "plot" }, el("h4", {}, title), ...children);

function rocFigure({ why, points, area, good, wrong }) {
  if (why) return figureOf("ROC curve of steps", el("p", {}, why));
  const path = points.map(([x, y], i) => `${i ? "L" : "M"}${across(x).toFixed(1)} ${upward(y).toFixed(1)}`).join("");
  const text = `Area ${area.toFixed(3)}; ${many(good, "good step")} against ${many(wrong, "first error")}. Steps after the first error are not annotated and left out.`;
  return figureOf(
    "ROC curve of steps",
    unitPlot(
      `ROC curve, area ${area.toFixed(3)}`,
      "first errors scored at least t",
      "good steps scored at least t",
      svg("path", { class: "curve", d: path }),
    ),
    el("figcaption", { class: "notes" }, text),
  );
}

function reliabilityFigure({ why, bins, ece }) {
  if (why) return figureOf("Reliability", el("p", {}, why));
  const largest = Math.max(...bins.map(([count]) => count));
  const known = bins.filter(([count]) => count);
  const bars = bins.map(([count], i) =>
    svg("rect", {
      class: "count",
      x: across(i / bins.length) + 1,
      width: across(0.1) - across(0) - 2,
      y: upward(0.25 * (count / largest)),
      height: upward(0) - upward(0.25 * (count / largest)),
    }),
  );
  const path = known
    .map(([, mean, share], i) => `${i ? "L" : "M"}${across(mean).toFixed(1)} ${upward(share).toFixed(1)}`)
    .join("");
  const dots = known.map(([, mean, share, low, high]) => [
    svg("path", { class: "whisker", d: `M${across(mean)} ${upward(low)}V${upward(high)}` }),
    svg("circle", { class: "dot", r: 4, cx: across(mean), cy: upward(share) }),
  ]);
  const rows = bins.map(([count, mean, share, low, high], i) =>
    el(
      "tr",
      {},
      el("th", { scope: "row" }, `${i / 10}–${(i + 1) / 10}`),
      [count.toLocaleString("en"), fixed(mean), fixed(share), count ? `${fixed(low)}–${fixed(high)}` : "–"].map(
        (text) => el("td", { class: "number" }, text),
      ),
    ),
  );
  const head = el(
    "thead",
    {},
    el(
      "tr",
      {},
      ["score", "steps", "mean score", "share good", "95% interval"].map((text) => el("th", { scope: "col" }, text)),
    ),
  );
  return figureOf(
    "Reliability",
    unitPlot(
      "Share of good steps against their mean score, in ten bins",
      "score",
      "share of good steps",
      bars,
      svg("path", { class: "curve", d: path }),
      dots,
    ),
    el(
      "figcaption",
      { class: "notes" },
      `On the diagonal a score is the probability that the step is good; expected calibration error ${fixed(ece)}. Bars: 95% intervals. Grey: how the steps are spread over the bins.`,
    ),
    el(
      "details",
      {},
      el("summary", {}, "Values"),
      scrolling("Reliability", el("table", {}, head, el("tbody", {}, rows))),
    ),
  );
}

function positionsFigure({ why, rows }) {
  if (why) return figureOf("Accuracy by position of the first error", el("p", {}, why));
  const lines = rows.map(([place, hits, count]) => {
    const share = hits / count;
    const bar = svg(
      "svg",
      { class: "meter", viewBox: "0 0 100 10", preserveAspectRatio: "none", "aria-hidden": "true" },
      svg("rect", { class: "rail", width: 100, height: 10 }),
      svg("rect", { class: "fill", width: 100 * share, height: 10 }),
    );
    return el(
      "tr",
      {},
      el("th", { scope: "row" }, place === "none" ? "no error" : `step ${place}`),
      el("td", { class: "bar" }, bar),
      el("td", { class: "number" }, (100 * share).toFixed(1)),
      el("td", { class: "number" }, `${hits}/${count}`),
    );
  });
  const head = el(
    "thead",
    {},
    el(
      "tr",
      {},
      el("th", { scope: "col" }, "first error"),
      el("th", { scope: "col", colspan: 2 }, "exact matches (%)"),
      el("th", { scope: "col" }, "traces"),
    ),
  );
  return figureOf(
    "Accuracy by position of the first error",
    el("table", { class: "positions" }, head, el("tbody", {}, lines)),
  );
}
