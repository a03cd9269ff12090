/* The traces of a run: a list that can be filtered, and the one that is open. */

const CHUNK = 200;
const MARKS = {
  right: "✓",
  missed: "○",
  "false alarm": "!",
  "too early": "◂",
  "too late": "▸",
  failed: "✕",
  "answer correct": "✓",
  "answer wrong": "✕",
};
const CLASSES = { right: "good", "answer correct": "good", failed: "bad" };
const TINTS = 4;

const endBadge = (name) => el("span", { class: `badge ${CLASSES[name] ?? ""}` }, `${MARKS[name] ?? "–"} ${name}`);
const stepName = (place) => (place === null ? "none" : place < 0 ? "no error" : `step ${place + 1}`);

/* Where a score lies on the scale, from -TINTS (lowest) to TINTS: what its tint says beside the number. */
function tintOf(score, scale) {
  if (!scale.length) return 0;
  const [low, middle, high] = scale;
  const span = score < middle ? middle - low : high - middle;
  const share = span > 0 ? (score - middle) / span : Math.sign(score - middle);
  return Math.round(Math.max(-1, Math.min(1, share)) * TINTS);
}

function tintLegend(part) {
  if (!part.scale.length) return "";
  const [low, middle, high] = part.scale;
  const swatches = Array.from({ length: 2 * TINTS + 1 }, (_, i) =>
    el("span", { class: "swatch", "data-tint": i - TINTS }),
  );
  return el(
    "p",
    { class: "notes tints" },
    `Tint of a step: score ${scoreText(low)} or less `,
    el("span", { class: "swatches", "aria-hidden": "true" }, swatches),
    ` ${scoreText(high)} or more; ${scoreText(middle)} is neutral.`,
  );
}

function traceAt(part, i) {
  const [id, problem, steps, error, correct] = DATA.texts[DATA.sets[part.set].texts[i]];
  return {
    id,
    problem: DATA.problems[problem],
    steps,
    error,
    correct,
    scores: part.scores[i],
    prediction: part.predictions[i],
    end: DATA.ends[part.ends[i]],
    failure: part.failures[i],
  };
}

function stepItem(trace, part, step, place) {
  const score = trace.scores?.[place];
  const labels = [];
  if (trace.error === place) labels.push(el("span", { class: "badge bad" }, "▲ label: first error"));
  if (trace.prediction === place) labels.push(el("span", { class: "badge predicted" }, "● predicted"));
  if (trace.error !== null && trace.error >= 0 && place > trace.error)
    labels.push(el("span", { class: "after" }, "after the first error"));
  const head = el(
    "div",
    { class: "stephead" },
    el("strong", {}, `Step ${place + 1}`),
    score === undefined ? "" : el("span", { class: "score" }, `score ${scoreText(score)}`),
    labels,
  );
  return el(
    "li",
    { class: "step", "data-tint": score === undefined ? null : tintOf(score, part.scale) },
    head,
    el("div", { class: "text" }, step),
  );
}

function traceView(trace, part) {
  const answer = trace.correct === null ? [] : [["final answer", trace.correct ? "correct" : "wrong"]];
  const label =
    trace.error === null ? "not annotated" : trace.error < 0 ? "no error" : `first error at step ${trace.error + 1}`;
  return el(
    "article",
    { class: "trace", "aria-label": `Trace ${trace.id}` },
    el("h4", {}, trace.id, " ", endBadge(trace.end)),
    dl([["label", label], ["prediction", stepName(trace.prediction)], ...answer]),
    trace.failure ? el("p", { class: "failure" }, `${trace.failure[0]}: ${trace.failure[1]}`) : "",
    el("h5", {}, "Problem"),
    el("div", { class: "text problem" }, trace.problem),
    el("h5", {}, "Steps"),
    el(
      "ol",
      { class: "steps" },
      trace.steps.map((step, place) => stepItem(trace, part, step, place)),
    ),
  );
}

function traceBrowser(number, part, route) {
  const set = DATA.sets[part.set];
  const all = set.texts.map((_, i) => i);
  const state = {
    end: "",
    words: [],
    kept: all,
    open: all.find((i) => whole(traceAt(part, i).id) === route.trace) ?? (all.length ? 0 : null),
    drawn: CHUNK,
  };
  const list = el("ol", { class: "list", "aria-label": "Traces" });
  const view = el("div", { class: "view" });
  const count = el("output", { "aria-live": "polite" });
  const search = el("input", {
    type: "search",
    placeholder: "words in id, problem or steps…",
    on: {
      input: () => {
        state.words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
        refresh();
      },
    },
  });
  const tally = new Map();
  for (const end of part.ends) tally.set(DATA.ends[end], (tally.get(DATA.ends[end]) ?? 0) + 1);
  const ends = [
    ["", `all (${all.length})`],
    ...DATA.ends.filter((name) => tally.has(name)).map((name) => [name, `${name} (${tally.get(name)})`]),
  ];

  function keeps(i) {
    const trace = traceAt(part, i);
    if (state.end && trace.end !== state.end) return false;
    const haystack = state.words.length ? [trace.id, trace.problem, ...trace.steps].join(" ").toLowerCase() : "";
    return state.words.every((word) => haystack.includes(word));
  }

  function item(i) {
    const trace = traceAt(part, i);
    const here = i === state.open;
    const link = el(
      "a",
      {
        href: hashOf({ run: number, part: part.name, trace: trace.id }),
        "aria-current": here ? "true" : null,
        tabindex: here ? 0 : -1,
        "data-place": i,
      },
      el("span", { class: "name" }, trace.id),
      endBadge(trace.end),
    );
    return el("li", {}, link);
  }

  function drawList() {
    const at = state.kept.indexOf(state.open);
    if (at >= state.drawn) state.drawn = Math.ceil((at + 1) / CHUNK) * CHUNK;
    list.replaceChildren(...state.kept.slice(0, state.drawn).map(item));
    if (at < 0 && list.firstChild) list.querySelector("a").tabIndex = 0;
    const rest = state.kept.length - state.drawn;
    if (rest > 0)
      list.append(
        el(
          "li",
          {},
          el(
            "button",
            {
              type: "button",
              on: {
                click: () => {
                  state.drawn += CHUNK;
                  drawList();
                },
              },
            },
            `Show more (${rest})`,
          ),
        ),
      );
  }

  function drawView() {
    const at = state.kept.indexOf(state.open);
    count.textContent = state.kept.length ? `${at + 1} of ${state.kept.length}` : "none";
    view.replaceChildren(state.open === null ? el("p", {}, "No trace.") : traceView(traceAt(part, state.open), part));
  }

  function refresh() {
    state.kept = all.filter(keeps);
    state.drawn = CHUNK;
    if (!state.kept.includes(state.open)) state.open = state.kept[0] ?? null;
    drawList();
    drawView();
  }

  function open(i, { focus = false } = {}) {
    state.open = i;
    const places = [...list.querySelectorAll("a")].map((link) => Number(link.dataset.place));
    if (!places.includes(i)) drawList();
    for (const link of list.querySelectorAll("a")) {
      const here = Number(link.dataset.place) === i;
      here ? link.setAttribute("aria-current", "true") : link.removeAttribute("aria-current");
      link.tabIndex = here ? 0 : -1;
      if (!here) continue;
      list.scrollTop = Math.min(
        Math.max(list.scrollTop, link.offsetTop + link.offsetHeight - list.clientHeight),
        link.offsetTop,
      );
      if (focus) link.focus({ preventScroll: true });
    }
    drawView();
  }

  /* Going on by key or button replaces the address, so that "back" leaves the traces rather than replaying them. */
  function move(by) {
    if (!state.kept.length) return;
    const at = state.kept.indexOf(state.open);
    const next = state.kept[Math.max(0, Math.min(state.kept.length - 1, at + by))];
    open(next, { focus: list.contains(document.activeElement) });
    history.replaceState(null, "", hashOf({ run: number, part: part.name, trace: traceAt(part, next).id }));
  }

  list.addEventListener("click", (event) => {
    const link = event.target.closest("a");
    if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    open(Number(link.dataset.place), { focus: true });
    history.replaceState(null, "", link.getAttribute("href"));
  });
  list.addEventListener("keydown", (event) => {
    if (event.key !== "ArrowDown" && event.key !== "ArrowUp") return;
    event.preventDefault();
    move(event.key === "ArrowDown" ? 1 : -1);
  });
  moveTrace = move;

  refresh();
  const shown =
    all.length < set.total
      ? `${all.length.toLocaleString("en")} of ${many(set.total, "trace")} shown, evenly spaced; the results above are those of all.`
      : `${many(set.total, "trace")}.`;
  const step = (text, by) => el("button", { type: "button", on: { click: () => move(by) } }, text);
  const controls = el(
    "div",
    { class: "controls" },
    choice("Outcome", ends, "", (value) => {
      state.end = value;
      refresh();
    }),
    labelled("Text", search),
    count,
    el("span", { class: "steppers" }, step("↑ previous (k)", -1), step("↓ next (j)", 1)),
  );
  return el(
    "section",
    { class: "traces" },
    el("h3", {}, "Traces"),
    el("p", { class: "notes" }, shown),
    tintLegend(part),
    controls,
    el("div", { class: "panes" }, list, view),
  );
}
