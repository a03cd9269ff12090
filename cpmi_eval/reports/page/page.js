/* Routing by the part of the address after #, the theme, and keys that work anywhere. */

let moveTrace = null;

function hashOf(route) {
  const found = Object.entries(route).filter(([, value]) => value !== null && value !== undefined);
  return `#${found.map(([name, value]) => `${name}=${encodeURIComponent(whole(value))}`).join("&")}`;
}

function routeOf(hash) {
  const found = new URLSearchParams(hash.slice(1));
  const run = found.has("run") ? Number(found.get("run")) : null;
  return {
    run: Number.isInteger(run) && DATA.runs[run] ? run : null,
    unknown: run !== null && !DATA.runs[run],
    board: found.get("board"),
    part: found.get("part"),
    trace: found.get("trace"),
  };
}

const go = (route) => {
  location.hash = hashOf(route);
};

function boardsPage() {
  const links =
    DATA.boards.length + DATA.published.length > 1
      ? el(
          "nav",
          { "aria-label": "Boards" },
          el(
            "ul",
            { class: "links" },
            DATA.boards.map((board, i) => el("li", {}, el("a", { href: `#board=${i}` }, board.title))),
          ),
        )
      : "";
  const sections = DATA.boards.map(boardSection);
  const empty =
    !DATA.boards.length && !DATA.published.length ? el("p", {}, "There is nothing to show: no rows were given.") : "";
  return el("div", {}, links, empty, sections, runsSection(), DATA.published.map(publishedSection));
}

/* Runs that no row points to can still be opened. */
function runsSection() {
  const linked = new Set(DATA.boards.flatMap((board) => board.rows.map((row) => row.run)));
  const rest = DATA.runs.map((run, i) => [run, i]).filter(([, i]) => !linked.has(i));
  if (!rest.length) return "";
  return el(
    "section",
    {},
    el("h2", {}, "Runs"),
    el(
      "ul",
      {},
      rest.map(([run, i]) => el("li", {}, el("a", { href: `#run=${i}` }, `${run.name} on ${run.task}`))),
    ),
  );
}

/* The boards keep their order, filter and place on the screen while a run is open. */
const boards = { node: null, open: false, scroll: 0, focus: null };

function leaveBoards() {
  if (!boards.open) return;
  Object.assign(boards, { open: false, scroll: scrollY, focus: document.activeElement });
}

function showBoards(main, route, first) {
  boards.node ??= boardsPage();
  const back = !boards.open && !first;
  main.replaceChildren(route.unknown ? el("p", { role: "alert" }, "This page holds no such run.") : "", boards.node);
  boards.open = true;
  document.title = DATA.title;
  const target = route.board === null ? null : document.getElementById(`board-${route.board}`);
  if (target) target.scrollIntoView();
  else if (back) scrollTo(0, boards.scroll);
  if (back && boards.focus?.isConnected) boards.focus.focus({ preventScroll: true });
}

function showRun(main, route, first) {
  leaveBoards();
  main.replaceChildren(runPage(route.run, route));
  document.title = `${DATA.runs[route.run].name} – ${DATA.title}`;
  const target = route.trace || route.part ? main.querySelector(route.trace ? ".traces" : ".part") : null;
  if (target) target.scrollIntoView();
  else if (!first) scrollTo(0, 0);
  if (!first) (main.querySelector("h2[tabindex]") ?? main).focus({ preventScroll: true });
}

function show(first) {
  const route = routeOf(location.hash);
  const main = document.getElementById("main");
  moveTrace = null;
  (route.run === null ? showBoards : showRun)(main, route, first);
}

function setTheme(dark) {
  document.documentElement.dataset.theme = dark ? "dark" : "light";
  document.getElementById("theme").setAttribute("aria-pressed", String(dark));
}

const prefersDark = matchMedia("(prefers-color-scheme: dark)");
document.getElementById("theme").setAttribute("aria-pressed", String(prefersDark.matches));
document
  .getElementById("theme")
  .addEventListener("click", (event) => setTheme(event.currentTarget.getAttribute("aria-pressed") !== "true"));

addEventListener("keydown", (event) => {
  if (!moveTrace || event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input, select, textarea"))
    return;
  if (event.key === "j" || event.key === "k") moveTrace(event.key === "j" ? 1 : -1);
});
addEventListener("hashchange", () => show(false));
document.getElementById("footer").textContent =
  `Made by cpmi-eval ${DATA.version}. This file loads nothing from anywhere.`;
show(true);
