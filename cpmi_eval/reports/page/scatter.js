/* Quality against cost: a point per row, the Pareto front of each group, intervals as error bars. */

const SHAPES = [
  (r) => svg("circle", { r }),
  (r) => svg("rect", { x: -r * 0.9, y: -r * 0.9, width: r * 1.8, height: r * 1.8 }),
  (r) => svg("path", { d: `M0 ${-r * 1.2}L${r * 1.15} ${r * 0.8}H${-r * 1.15}Z` }),
  (r) => svg("path", { d: `M0 ${-r * 1.3}L${r * 1.3} 0L0 ${r * 1.3}L${-r * 1.3} 0Z` }),
  (r) => svg("path", { d: `M0 ${r * 1.2}L${r * 1.15} ${-r * 0.8}H${-r * 1.15}Z` }),
  (r) => svg("path", { d: `M${-r} ${-r}L${r} ${r}M${-r} ${r}L${r} ${-r}`, class: "cross" }),
];

/* The groups of the whole page, so that one has the same shape and colour on every board. */
const GROUPS = [...new Set(DATA.boards.flatMap((board) => board.rows.map(groupOf)))].sort();
const styleOf = (key) => GROUPS.indexOf(key) % SHAPES.length;

function niceTicks(low, high, count) {
  const raw = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((one) => one * power).find((one) => one >= raw);
  const ticks = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i += 1)
    ticks.push(Number((i * step).toPrecision(12)));
  return ticks;
}

/* Round values of a logarithmic axis between two bounds. */
function powerTicks(low, high) {
  const decades = Math.log10(high / low);
  const factors = decades < 1 ? [1, 2, 3, 5] : decades < 2.5 ? [1, 3] : [1];
  const ticks = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power += 1) {
    ticks.push(...factors.map((factor) => Number(`${factor}e${power}`)));
  }
  return ticks.filter((value) => value >= low && value <= high);
}

const TICK_ROOM = 48; // pixels
const ROUND_TIMES = [60, 120, 300, 600, 1800, 3600, 7200, 18000, 36000, 72000];

function timeTicks(low, high) {
  const long = high > 1e5 ? powerTicks(1e5, high) : [];
  return [...powerTicks(low, Math.min(high, 59)), ...ROUND_TIMES, ...long].filter(
    (value) => value >= low && value <= high,
  );
}

/* Ticks that leave room for their texts. */
function roomy(ticks, at) {
  const kept = [];
  for (const tick of ticks) if (!kept.length || at(tick) - at(kept.at(-1)) >= TICK_ROOM) kept.push(tick);
  return kept;
}

/* A logarithmic axis for costs, with a place of its own for zero left of it. */
function costAxis(values, left, right, ticksOf) {
  const positive = values.filter((value) => value > 0);
  const zeros = positive.length < values.length;
  if (!positive.length) return { at: () => (left + right) / 2, ticks: zeros ? [0] : [], zeros };
  const start = left + (zeros ? 46 : 0);
  let [low, high] = [Math.log10(Math.min(...positive)), Math.log10(Math.max(...positive))];
  const pad = Math.max(0.15, (high - low) * 0.06);
  [low, high] = [low - pad, high + pad];
  const at = (value) => (value > 0 ? start + ((Math.log10(value) - low) / (high - low)) * (right - start) : left + 16);
  const ticks = roomy(ticksOf(10 ** low, 10 ** high), at);
  return { at, ticks: zeros ? [0, ...ticks] : ticks, zeros, start };
}

/* The rows that no other row of the group beats at less cost; rows that are not ranked are no part of it. */
function paretoFront(rows, quality, cost, lower) {
  const better = (a, b) => (lower ? a < b : a > b);
  const ordered = rows
    .filter((row) => row.rank !== "")
    .sort((a, b) => cost(a) - cost(b) || (better(quality(a), quality(b)) ? -1 : 1));
  const front = [];
  for (const row of ordered) if (!front.length || better(quality(row), quality(front.at(-1)))) front.push(row);
  return front;
}

function scatterFigure(board, groups) {
  const keys = [...groups.keys()];
  const state = {
    metric: board.metrics.includes(board.metric) ? board.metric : board.metrics[0],
    cost: "seconds",
    keep: () => true,
  };
  const canvas = el("div", { class: "canvas" });
  const tip = el("div", { class: "tip", hidden: true });
  const caption = el("figcaption", { class: "notes" });
  const legend = el("ul", { class: "legend" });
  const controls = el(
    "div",
    { class: "controls" },
    choice(
      "Quality",
      board.metrics.map((name) => [name, formOf(name).label]),
      state.metric,
      (value) => {
        state.metric = value;
        draw();
      },
    ),
    choice(
      "Cost",
      Object.entries(COSTS).map(([name, [label]]) => [name, label]),
      state.cost,
      (value) => {
        state.cost = value;
        draw();
      },
    ),
  );
  const figure = el(
    "figure",
    { class: "scatter" },
    el("h3", {}, "Quality against cost"),
    controls,
    el("div", { class: "stage" }, canvas, tip),
    legend,
    caption,
  );

  const quality = (row) => row.metrics[state.metric]?.[0] ?? null;
  const cost = (row) => row.cost?.[state.cost] ?? null;

  function describe(row) {
    const [label, write] = COSTS[state.cost];
    const bounds = intervalText(state.metric, row.metrics[state.metric]);
    return [
      scorerName(row),
      [row.model, row.aggregation ?? row.threshold].filter(Boolean).join(", "),
      `${formOf(state.metric).label}${unitOf(state.metric)} ${metricText(state.metric, quality(row))}${bounds ? ` (${bounds})` : ""}`,
      `${label} ${write(cost(row))}`,
      row.rank
        ? `rank ${row.rank} among ${groupName(row).replace(" *", "")}`
        : `not ranked${row.reason ? `: ${row.reason}` : ""}`,
    ].filter(Boolean);
  }

  function showTip(row, x, y) {
    tip.replaceChildren(...describe(row).map((text, i) => el(i ? "span" : "strong", {}, text)));
    tip.hidden = false;
    const room = canvas.clientWidth - tip.offsetWidth;
    tip.style.left = `${Math.max(0, Math.min(room, x + 12))}px`;
    tip.style.top = `${y > canvas.clientHeight / 2 ? y - tip.offsetHeight - 12 : y + 14}px`;
  }

  function point(row, x, y, span) {
    const style = styleOf(groupOf(row));
    const show = () => showTip(row, x, y);
    const hide = () => {
      tip.hidden = true;
    };
    const common = {
      class: `point g${style}${row.rank ? "" : " hollow"}`,
      tabindex: 0,
      on: { focus: show, blur: hide, mouseenter: show, mouseleave: hide },
    };
    const bar = span
      ? svg("path", { class: "bar", d: `M0 ${span[0] - y}V${span[1] - y}M-4 ${span[0] - y}H4M-4 ${span[1] - y}H4` })
      : "";
    const ring = svg("circle", { r: 12, class: "ring" });
    const inner = [bar, ring, SHAPES[style](6)];
    const label = describe(row).join(", ");
    const node =
      row.run === null
        ? svg("g", { ...common, role: "img", "aria-label": label }, inner)
        : svg("a", { ...common, href: `#run=${row.run}`, "aria-label": `${label}; open the run` }, inner);
    node.setAttribute("transform", `translate(${x} ${y})`);
    return node;
  }

  function draw() {
    tip.hidden = true;
    const rows = board.rows.filter((row) => state.keep(row) && quality(row) !== null && cost(row) !== null);
    const left = board.rows.filter(state.keep).length - rows.length;
    legend.replaceChildren(
      ...keys
        .filter((key) => rows.some((row) => groupOf(row) === key))
        .map((key) => {
          const i = styleOf(key);
          return el(
            "li",
            {},
            svg(
              "svg",
              { width: 16, height: 16, viewBox: "-8 -8 16 16", "aria-hidden": "true", class: `g${i}` },
              SHAPES[i](5),
            ),
            ` ${groupName(groups.get(key)[0])}`,
          );
        }),
    );
    caption.textContent = [
      "Line: the Pareto front of a group, what nothing in it beats at less cost; groups that see different things share none.",
      "Hollow: not ranked.",
      left ? `Not drawn: ${many(left, "row")} without this value or cost.` : "",
    ]
      .filter(Boolean)
      .join(" ");
    if (!rows.length) {
      canvas.replaceChildren(el("p", {}, "Nothing to draw: no row shown has both."));
      return;
    }
    canvas.replaceChildren(plot(rows));
  }

  function plot(rows) {
    const width = Math.max(260, canvas.clientWidth || 720);
    const height = Math.round(Math.min(420, Math.max(280, width * 0.55)));
    const box = { left: 52, right: width - 14, top: 12, bottom: height - 46 };
    const bounds = rows.flatMap((row) => row.metrics[state.metric].slice(0, 3)).filter((value) => value !== null);
    let [low, high] = [Math.min(...bounds), Math.max(...bounds)];
    const pad = Math.max((high - low) * 0.08, 0.005);
    [low, high] = [low - pad, high + pad];
    const y = (value) => box.bottom - ((value - low) / (high - low)) * (box.bottom - box.top);
    const x = costAxis(rows.map(cost), box.left + 8, box.right - 8, COSTS[state.cost][2]);
    const write = COSTS[state.cost][1];
    const lower = formOf(state.metric).lower;
    const parts = [
      axes(
        box,
        x.ticks.map((tick) => [x.at(tick), tick ? write(tick) : "0"]),
        niceTicks(low, high, 5).map((tick) => [y(tick), metricText(state.metric, tick)]),
        `${COSTS[state.cost][0]}, logarithmic`,
        `${formOf(state.metric).label}${unitOf(state.metric)}`,
      ),
    ];
    if (x.zeros && x.start)
      parts.push(svg("path", { class: "break", d: `M${x.start - 12} ${box.bottom + 5}l5 -10m1 10l5 -10` }));
    for (const key of keys) {
      const front = paretoFront(
        rows.filter((row) => groupOf(row) === key),
        quality,
        cost,
        lower,
      );
      const path = front
        .map((row, i) => (i ? `H${x.at(cost(row))}V${y(quality(row))}` : `M${x.at(cost(row))} ${y(quality(row))}`))
        .join("");
      if (front.length > 1) parts.push(svg("path", { class: `front g${styleOf(key)}`, "data-group": key, d: path }));
    }
    for (const row of rows) {
      const [, down, up] = row.metrics[state.metric];
      parts.push(point(row, x.at(cost(row)), y(quality(row)), down === null || up === null ? null : [y(down), y(up)]));
    }
    return svg(
      "svg",
      {
        width,
        height,
        viewBox: `0 0 ${width} ${height}`,
        role: "group",
        "aria-label": `${board.title}: ${formOf(state.metric).label} against ${COSTS[state.cost][0]}`,
      },
      parts,
    );
  }

  let drawn = 0;
  new ResizeObserver(() => {
    if (canvas.clientWidth && canvas.clientWidth !== drawn) {
      drawn = canvas.clientWidth;
      draw();
    }
  }).observe(canvas);
  return {
    figure,
    filter: (keep) => {
      state.keep = keep;
      draw();
    },
  };
}
