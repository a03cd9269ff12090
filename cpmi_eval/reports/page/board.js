/* A board: controls, the table of each group of comparable rows, and quality against cost. */

const COSTS = {
  seconds: ["wall time", secondsText, timeTicks],
  device_seconds: ["device time", secondsText, timeTicks],
  computed: ["tokens computed", compact, powerTicks],
  generated: ["tokens generated", compact, powerTicks],
  requested: ["tokens requested", compact, powerTicks],
  memory: ["peak memory", bytesText, powerTicks],
};
const FIRST_ROWS = 300;

/* What a board is ranked by: a metric, or a cost by the name that it has on the command line. */
const COST_NAMES = { wall_seconds: "seconds", peak_memory_bytes: "memory" };
const rankedBy = (name) => COSTS[COST_NAMES[name] ?? name]?.[0] ?? formOf(name).label;

/* Columns: a name, a label, the value that sorts, what is shown, and whether a first click sorts downwards. */

function textColumn(name, label, read) {
  return { name, label, value: (row) => read(row) || null, show: (row) => read(row) || "–", down: false };
}

function metricColumn(name, metrics = (row) => row.metrics) {
  const value = (row) => metrics(row)?.[name]?.[0] ?? null;
  const show = (row) => {
    const found = metrics(row)?.[name];
    if (!found) return "–";
    const bounds = intervalText(name, found);
    return [metricText(name, found[0]), bounds ? el("span", { class: "interval" }, " ", bounds) : ""];
  };
  return { name, label: formOf(name).label + unitOf(name), value, show, down: !formOf(name).lower, number: true };
}

function costColumn(name) {
  const [label, write] = COSTS[name];
  const value = (row) => row.cost?.[name] ?? null;
  return { name, label, value, show: (row) => (row.cost ? write(row.cost[name]) : "–"), down: false, number: true };
}

function marks(row) {
  const found = [];
  if (row.oracle) found.push("oracle");
  if (row.traces && row.traces.scored < row.traces.total) found.push("partial");
  if (row.synthetic) found.push("synthetic data");
  return found.map((mark) => el("span", { class: "badge warn" }, mark));
}

function scorerCell(row) {
  const name = scorerName(row);
  return [
    row.run === null ? name : el("a", { href: `#run=${row.run}` }, name),
    marks(row).map((mark) => [" ", mark]),
    row.reason ? el("span", { class: "reason" }, `not ranked: ${row.reason}`) : "",
    row.note ? el("span", { class: "reason" }, row.note) : "",
  ];
}

function columnsOf(board) {
  const rows = board.rows;
  const rule = rows.some((row) => row.aggregation)
    ? textColumn("aggregation", "aggregation", (row) => row.aggregation)
    : textColumn("threshold", "threshold", (row) => row.threshold);
  const places = new Map(rows.map((row, place) => [row, place]));
  const rank = {
    name: "rank",
    label: "#",
    value: (row) => places.get(row),
    show: (row) => row.rank || "–",
    down: false,
    number: true,
  };
  const scorer = { name: "scorer", label: "scorer", value: scorerName, show: scorerCell, down: false, head: true };
  const scored = {
    name: "scored",
    label: "scored",
    value: (row) => row.traces?.scored ?? null,
    show: (row) => (row.traces ? `${row.traces.scored}/${row.traces.total}` : "–"),
    down: true,
    number: true,
  };
  const extra = ["hardware", "date", "fingerprint"].filter((name) => rows.some((row) => row[name]));
  return [
    rank,
    scorer,
    textColumn("model", "model", (row) => row.model),
    ...board.metrics.map((name) => metricColumn(name)),
    rule,
    ...Object.keys(COSTS).map(costColumn),
    scored,
    ...extra.map((name) => textColumn(name, name, (row) => row[name])),
  ];
}

function compare(column, down) {
  return (a, b) => {
    const [x, y] = [column.value(a), column.value(b)];
    if (x === null || y === null) return (x === null) - (y === null);
    const order = typeof x === "number" ? x - y : String(x).localeCompare(String(y), "en", { numeric: true });
    return down ? -order : order;
  };
}

/* A table whose rows stay in their groups: sorting orders each group, so no rank crosses from one to another. */
function sortableTable(caption, columns, groups, initial) {
  const table = el("table", {}, el("caption", {}, caption));
  const state = { column: columns.find((one) => one.name === initial), down: false, keep: () => true, all: false };
  const heads = new Map();
  const head = el("tr");
  for (const column of columns) {
    const arrow = el("span", { class: "arrow", "aria-hidden": "true" });
    const button = el("button", { type: "button", on: { click: () => sort(column) } }, column.label, arrow);
    const cell = el("th", { scope: "col", class: column.number ? "number" : null, "data-column": column.name }, button);
    heads.set(column, [cell, arrow]);
    head.append(cell);
  }
  table.append(el("thead", {}, head));

  function sort(column) {
    state.down = state.column === column ? !state.down : column.down;
    state.column = column;
    draw();
  }

  function line(row) {
    return el(
      "tr",
      { class: row.rank === "" ? "unranked" : null },
      columns.map((column) =>
        el(
          column.head ? "th" : "td",
          { scope: column.head ? "row" : null, class: column.number ? "number" : null, "data-column": column.name },
          column.show(row),
        ),
      ),
    );
  }

  function draw() {
    for (const [column, [cell, arrow]] of heads) {
      const sorted = column === state.column;
      cell.setAttribute("aria-sort", sorted ? (state.down ? "descending" : "ascending") : "none");
      arrow.textContent = sorted ? (state.down ? " ▼" : " ▲") : "";
    }
    table.querySelectorAll("tbody").forEach((body) => body.remove());
    let left = state.all ? Infinity : FIRST_ROWS;
    let hidden = 0;
    for (const [name, rows] of groups) {
      const kept = rows.filter(state.keep);
      if (!kept.length) continue;
      const shown = state.column
        ? [...kept].sort(compare(state.column, state.down)).slice(0, left)
        : kept.slice(0, left);
      left -= shown.length;
      hidden += kept.length - shown.length;
      const title = name
        ? el("tr", { class: "group" }, el("th", { scope: "rowgroup", colspan: columns.length }, el("span", {}, name)))
        : "";
      table.append(el("tbody", {}, title, shown.map(line)));
    }
    if (hidden) {
      const button = el(
        "button",
        {
          type: "button",
          on: {
            click: () => {
              state.all = true;
              draw();
            },
          },
        },
        `Show ${many(hidden, "more row")}`,
      );
      table.append(el("tbody", {}, el("tr", {}, el("td", { colspan: columns.length }, button))));
    }
  }

  draw();
  return {
    table,
    filter: (keep) => {
      state.keep = keep;
      draw();
    },
  };
}

function groupsOf(rows) {
  const groups = new Map();
  for (const row of rows) {
    if (!groups.has(groupOf(row))) groups.set(groupOf(row), []);
    groups.get(groupOf(row)).push(row);
  }
  return groups;
}

function notes(board) {
  const found = [`Ranked by ${rankedBy(board.metric)} within each group; sorting and filtering change no rank.`];
  if (board.rows.some((row) => /\D/.test(row.rank))) found.push("A range of ranks: the rows in it are not told apart.");
  if (board.rows.some((row) => Object.values(row.metrics).some((one) => one[1] !== null)))
    found.push("Beside a value: its 95% interval.");
  if (board.rows.some((row) => row.reference))
    found.push("* is given the reference answer, which the others are not, so it is never ranked against them.");
  return el("p", { class: "notes" }, found.join(" "));
}

function boardSection(board, place) {
  const groups = groupsOf(board.rows);
  const named = [...groups].map(([, rows]) => [groupName(rows[0]), rows]);
  const hidden = new Set();
  const count = el("output", { "aria-live": "polite" });
  const text = el("input", { type: "search", placeholder: "scorer, model, settings…", on: { input: refresh } });
  const kinds = el("fieldset", { class: "kinds" }, el("legend", {}, "Show"));
  for (const [key, rows] of groups) {
    const box = el("input", {
      type: "checkbox",
      checked: true,
      on: {
        change: () => {
          box.checked ? hidden.delete(key) : hidden.add(key);
          refresh();
        },
      },
    });
    kinds.append(el("label", {}, box, ` ${groupName(rows[0])}`));
  }
  const sortable = sortableTable(`${board.title}, measured`, columnsOf(board), named, "rank");
  const scatter = scatterFigure(board, groups);

  function refresh() {
    const words = text.value.toLowerCase().split(/\s+/).filter(Boolean);
    const keep = (row) => {
      const haystack = [scorerName(row), row.model, row.threshold, row.aggregation, row.kind, row.reason]
        .join(" ")
        .toLowerCase();
      return !hidden.has(groupOf(row)) && words.every((word) => haystack.includes(word));
    };
    sortable.filter(keep);
    scatter.filter(keep);
    count.textContent = `${board.rows.filter(keep).length} of ${many(board.rows.length, "row")}`;
  }

  refresh();
  const controls = el("div", { class: "controls" }, labelled("Filter", text), kinds, count);
  return el(
    "section",
    { id: `board-${place}`, class: "board" },
    el("h2", {}, board.title),
    controls,
    scrolling(`${board.title}: table`, sortable.table),
    notes(board),
    scatter.figure,
  );
}

function publishedSection({ task, columns, rows }) {
  const spread = columns.map(([part, metric]) => {
    const column = metricColumn(metric, (row) => row.parts[part]);
    const short = part === task ? "mean" : part.replace(`${task}/`, "");
    return { ...column, name: `${part}:${metric}`, label: `${short} ${column.label}` };
  });
  const scorer = { name: "scorer", label: "scorer", value: scorerName, show: scorerCell, down: false, head: true };
  const all = [
    scorer,
    textColumn("model", "model", (row) => row.model),
    ...spread,
    textColumn("threshold", "threshold", (row) => row.threshold),
    textColumn("source", "source", (row) => row.source),
  ];
  const shown = all.filter((column) => column.head || rows.some((row) => column.value(row) !== null));
  const named = [...groupsOf(rows)].map(([, group]) => [groupName(group[0]), group]);
  const { table } = sortableTable(`${task}, as published by others`, shown, named, null);
  return el(
    "section",
    { class: "published" },
    el("h2", {}, `${task}: published results`),
    el("p", { class: "notes" }, "Reported by others, not measured here, and never ranked with what was."),
    scrolling(`${task}: published results`, table),
  );
}
