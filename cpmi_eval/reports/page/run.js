/* The page of one run: what it was, what came out, plots, failures, and its traces. */

function resultsTable(run) {
  const names = [...new Set(Object.values(run.results).flatMap(Object.keys))];
  const parts = run.parts.length === 1 ? [run.parts[0].name] : Object.keys(run.results);
  const head = el(
    "tr",
    {},
    el("th", { scope: "col" }, "part"),
    names.map((name) => el("th", { scope: "col", class: "number" }, formOf(name).label + unitOf(name))),
  );
  const rows = parts.map((part) =>
    el(
      "tr",
      {},
      el("th", { scope: "row" }, part === run.task && run.parts.length > 1 ? `${part} (mean)` : part),
      names.map((name) => el("td", { class: "number" }, resultCell(name, run.results[part]?.[name]))),
    ),
  );
  return el(
    "table",
    {},
    el("caption", {}, "Results, with 95% intervals where there are some"),
    el("thead", {}, head),
    el("tbody", {}, rows),
  );
}

function resultCell(name, found) {
  if (!found) return "–";
  const bounds = intervalText(name, found);
  return [
    metricText(name, found[0]),
    bounds ? el("span", { class: "interval" }, " ", bounds) : "",
    el("span", { class: "n" }, ` n=${found[3].toLocaleString("en")}`),
  ];
}

function detailsTable(run, part) {
  const found = Object.entries(run.details[part] ?? {});
  if (!found.length) return "";
  const rows = found.map(([name, value]) =>
    el(
      "tr",
      {},
      el("th", { scope: "row" }, formOf(name).label),
      el("td", { class: "number" }, resultCell(name, value)),
    ),
  );
  return el(
    "details",
    {},
    el("summary", {}, `Details of ${part}: ${many(found.length, "value")}`),
    scrolling(`Details of ${part}`, el("table", {}, el("tbody", {}, rows))),
  );
}

function failuresTable(run) {
  if (!run.errors.length) return el("p", {}, "No trace failed.");
  const head = el(
    "tr",
    {},
    ["reason", "traces", "for instance"].map((text) => el("th", { scope: "col" }, text)),
  );
  const rows = run.errors.map(([kind, count, id, message]) =>
    el(
      "tr",
      {},
      el("th", { scope: "row" }, kind),
      el("td", { class: "number" }, count.toLocaleString("en")),
      el("td", {}, `${id}: ${message}`),
    ),
  );
  return scrolling(
    "Failures",
    el(
      "table",
      {},
      el("caption", {}, "Traces without a score, counted as misses"),
      el("thead", {}, head),
      el("tbody", {}, rows),
    ),
  );
}

function endingsList(part) {
  const total = part.counts.reduce((sum, count) => sum + count, 0);
  const items = part.counts.map((count, i) => [DATA.ends[i], count]).filter(([, count]) => count);
  return el(
    "ul",
    { class: "endings" },
    items.map(([name, count]) =>
      el("li", {}, endBadge(name), ` ${count.toLocaleString("en")} (${((100 * count) / total).toFixed(1)}%)`),
    ),
  );
}

function stepPlots(run, part) {
  if (run.selects)
    return el("p", {}, "The task selects among solutions, whose steps are not annotated: there are no plots of steps.");
  return el(
    "div",
    { class: "plots" },
    rocFigure(part.roc),
    reliabilityFigure(part.reliability),
    positionsFigure(part.positions),
  );
}

function runPage(number, route) {
  const run = DATA.runs[number];
  if (!run.parts.length) return el("p", {}, `${run.name} on ${run.task} holds no trace.`);
  const place = Math.max(
    0,
    run.parts.findIndex((part) => part.name === route.part),
  );
  const part = run.parts[place];
  const badges = [run.reference ? "given the reference answer *" : "", run.synthetic ? "synthetic data" : ""].filter(
    Boolean,
  );
  const chooser =
    run.parts.length > 1
      ? choice(
          "Part",
          run.parts.map((one) => [one.name, one.name]),
          part.name,
          (name) => go({ run: number, part: name }),
        )
      : "";
  return el(
    "article",
    { class: "run" },
    el("nav", { "aria-label": "Back" }, el("a", { href: "#" }, "← all boards")),
    el("h2", { tabindex: -1 }, `${run.name} on ${run.task}`),
    badges.length
      ? el(
          "p",
          {},
          badges.map((text) => [el("span", { class: "badge warn" }, text), " "]),
        )
      : "",
    scrolling("Results", resultsTable(run)),
    el(
      "div",
      { class: "columns" },
      el("section", {}, el("h3", {}, "What was run, and what it cost"), dl(run.facts)),
      el(
        "section",
        {},
        run.selects ? "" : [el("h3", {}, "Threshold"), dl(Object.entries(run.threshold))],
        el("h3", {}, "Failures"),
        failuresTable(run),
      ),
    ),
    el(
      "section",
      { class: "part" },
      el("h3", {}, part.name),
      chooser,
      endingsList(part),
      stepPlots(run, part),
      detailsTable(run, part.name),
    ),
    traceBrowser(number, part, route),
  );
}
