"""The page: what is in the file, and what it does in a real browser (see browser.py for how that is started)."""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import browser
import pytest
from maderuns import made
from msgspec.structs import replace as changed
from sklearn.metrics import roc_auc_score

from cpmi_eval.cost import Share
from cpmi_eval.errors import UsageError
from cpmi_eval.leaderboards import schema
from cpmi_eval.metrics.outcome import Outcome
from cpmi_eval.record.rows import Record
from cpmi_eval.record.run import Run
from cpmi_eval.reports import escape
from cpmi_eval.reports.page import Board, Placed, curves, page, runs
from cpmi_eval.types import JSON, Failure, Gold

PART = "task/one"
HOSTILE = '</script><script>window.hit = 1</script><img src=x onerror="window.hit = 2">\u2028&amp;<!--'


def record(
    place: int,
    scores: Sequence[float] | None,
    gold: int | None,
    prediction: int | None,
    *,
    texts: Sequence[str] = (),
    name: str | None = None,
    problem: str | None = None,
) -> Record:
    steps = tuple(texts) or tuple(f"Step {i + 1} of trace {place}." for i in range(len(scores or (0, 0))))
    error = Failure("too_long", "longer than the model's context") if scores is None else None
    return Record(
        id=name or f"trace-{place}",
        part=PART,
        cluster=str(place),
        problem=problem or f"Problem {place}?",
        steps=steps,
        gold=Gold(gold, None if gold is None else gold < 0),
        scores=None if scores is None else tuple(scores),
        prediction=prediction,
        error=error,
        cost=Share.nothing(),
    )


RECORDS = (
    record(0, (0.9, 0.8, 0.1), 2, 2),
    record(1, (0.9, 0.7), 0, -1),
    record(2, (0.2, 0.6), -1, 0),
    record(3, (0.3, 0.4, 0.6), 1, 0),
    record(4, (0.8, 0.9, 0.4), 1, 2),
    record(5, None, 1, None),
    record(6, (0.9, 0.9), -1, -1),
)


def summary(**changes: Any) -> JSON:
    metrics = {
        "f1": {"value": 0.25, "n": 7, "interval": [0.1, 0.5]},
        "step_auc": {"value": 0.75, "n": 12},
        "deep": {"value": 0.125, "n": 7, "detail": True},
    }
    known = {
        "results": {PART: metrics, "task": metrics},
        "cost": {
            "wall_seconds": {"load_model": 1.0, "score": 61.0, "total": 62.0},
            "device_seconds": 100.0,
            "tokens": {"requested": 2000, "computed": 1000, "reused": 1000, "generated": 0},
            "peak_memory_bytes": 10**9,
        },
        "coverage": {PART: {"traces": 7, "scored": 6}},
        "errors": {"too_long": 1},
        "labeler": {"name": "cpmi", "kind": "labeler", "uses_reference": True},
        "threshold": {"protocol": "fixed:0.5", "value": 0.5, "undecided": False},
        "synthetic": False,
        "config": {"labeler": "cpmi", "labeler_args": {"w": 1}, "task": "task", "limit": None, "seed": 3},
        "model": {"backend": "hf", "model": "small", "sha256": "ab" * 32, "dtype": "float32", "device": "cpu"},
        "data": [{"name": "data.json", "revision": None, "sha256": "cd" * 32}],
        "versions": {"python": "3.11"},
    }
    return {**known, **changes}


def run_of(records: Sequence[Record] = RECORDS, folder: str = "run", **changes: Any) -> Run:
    return made(Path("/somewhere") / folder, records, **summary(**changes))


def row_of(
    scorer: str,
    f1: float | None,
    seconds: float,
    *,
    kind: str = "labeler",
    reference: bool = True,
    scored: int = 7,
    threshold: str = "native",
) -> schema.Row:
    bounds = (None, None) if f1 is None else (f1 - 0.05, f1 + 0.05)
    metrics = {"f1": schema.Value(f1, *bounds, 7), "step_auc": schema.Value(1 - (f1 or 0), n=12)}
    tokens = int(seconds * 100)
    part = schema.Part(
        metrics,
        schema.TraceSet("ef" * 32, 7, scored),
        schema.Cost(seconds, 2 * seconds, 3 * tokens, tokens, 0, 10**9),
    )
    model = {"name": "small", "dtype": "float32"}
    return schema.Row(
        "task", "measured", scorer, kind, {PART: part}, uses_reference=reference, model=model, threshold=threshold
    )


ROWS = (
    Placed(row_of("alpha", 0.5, 100.0), "1", run=0),
    Placed(row_of("beta", 0.4, 10.0), "2–3"),
    Placed(row_of("gamma", 0.3, 50.0), "2–3"),
    Placed(row_of("fitted", 0.9, 1.0, threshold="oracle"), "", "its threshold was fitted to these traces"),
    Placed(row_of("prm-a", 0.6, 20.0, kind="prm", reference=False), "1"),
    Placed(row_of("prm-b", 0.2, 0.0, kind="prm", reference=False), "2"),
    Placed(row_of("prm-c", 0.1, 5.0, kind="prm", reference=False, scored=5), "", "2 of 7 traces have no score"),
)
PUBLISHED = (
    schema.Row(
        "task",
        "published",
        "Elsewhere-7B",
        "prm",
        {PART: schema.Part({"f1": schema.Value(0.479)}), "task": schema.Part({"f1": schema.Value(0.315)})},
        source="arXiv 2501.07301, Table 7",
    ),
)


def board(rows: Sequence[Placed] = ROWS) -> Board:
    return Board(PART, "task/one, 7 traces", "f1", tuple(rows))


def embedded(text: str) -> Any:
    return json.loads(text.split('<script type="application/json" id="data">')[1].split("</script>")[0])


def test_the_file_forbids_itself_every_connection_and_names_none() -> None:
    text = page("A title", [board()], [run_of()], PUBLISHED)
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', text)
    assert policy
    rules = dict(rule.strip().split(" ", 1) for rule in policy[1].split(";"))
    assert rules["default-src"] == "'none'"
    assert "unsafe" not in policy[1]
    assert not re.search(r"<(?:script|link|img|iframe)[^>]+(?:src|href)=\"(?!data:)", text)
    assert not re.search(
        r"@import|url\(|fetch\(|XMLHttpRequest|innerHTML|insertAdjacentHTML|document\.write|eval\(", text
    )


def test_hostile_texts_stay_data_and_come_back_whole() -> None:
    records = [record(0, (0.5,), -1, -1, texts=[HOSTILE], name=HOSTILE, problem=HOSTILE)]
    title = f"{HOSTILE}\ud800"
    text = page(title, [], [run_of(records)])
    assert text.count("</script>") == 2
    assert "<img" not in text
    assert "\u2028" not in text.split('id="data">')[1]
    text.encode("utf-8")
    data = embedded(text)
    assert data["title"] == title
    assert data["texts"][0][:3] == [HOSTILE, 0, [HOSTILE]]
    assert data["problems"] == [HOSTILE]


def test_numbers_that_json_does_not_know_are_refused() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        escape.json({"value": float("nan")})


def test_a_row_without_the_part_of_its_board() -> None:
    with pytest.raises(UsageError, match=r"alpha on board 'B' has no part 'other'; it has task/one"):
        page("A", [Board("other", "B", "f1", ROWS[:1])])


def test_a_row_that_points_to_no_run() -> None:
    with pytest.raises(UsageError, match="points to run 0, but the page was given 0"):
        page("A", [board()])


def test_numbers_of_a_row() -> None:
    shown = embedded(page("A", [board()], [run_of()]))["boards"][0]["rows"]
    assert shown[0]["metrics"] == {"f1": [0.5, 0.45, 0.55, 7], "step_auc": [0.5, None, None, 12]}
    assert shown[0]["cost"]["device_seconds"] == 200
    assert [one["rank"] for one in shown] == ["1", "2–3", "2–3", "", "1", "2", ""]
    assert [one["oracle"] for one in shown] == [False, False, False, True, False, False, False]


def run_data(*given: Run) -> JSON:
    return runs.run_data(given, {})


def test_endings() -> None:
    part = run_data(run_of())["runs"][0]["parts"][0]
    names = [curves.ENDS[end] for end in part["ends"]]
    assert names == ["right", "missed", "false alarm", "too early", "too late", "failed", "right"]
    assert dict(zip(curves.ENDS, part["counts"], strict=True)) == {
        **dict.fromkeys(curves.ENDS, 0),
        **dict.fromkeys(("missed", "false alarm", "too early", "too late", "failed"), 1),
        "right": 2,
    }
    assert part["failures"] == {5: ["too_long", "longer than the model's context"]}


@pytest.mark.parametrize(
    ("gold", "prediction", "undecided", "ending"),
    [
        (Gold(1), None, False, "no prediction"),
        (Gold(1), None, True, "no decision"),
        (Gold(None), 0, False, "not annotated"),
        (Gold(None, True), None, True, "answer correct"),
        (Gold(None, False), 0, False, "answer wrong"),
    ],
)
def test_endings_without_a_comparison(gold: Gold, prediction: int | None, undecided: bool, ending: str) -> None:
    assert curves.ending(Outcome(gold, (0.5,), prediction, undecided), failed=False) == ending


def test_traces_without_any_step_count_as_failed() -> None:
    blank = [
        {"task": PART, "id": "blank", "cluster": "x", "gold": {"first_error": None, "final_answer_correct": False}}
    ]
    part = run_data(run_of(empty=blank))["runs"][0]["parts"][0]
    assert part["counts"][curves.ENDS.index("failed")] == 2
    assert len(part["ends"]) == 7


def test_roc_by_hand() -> None:
    found = curves.roc([1, 1, 0, 1], [0.9, 0.6, 0.5, 0.1])
    assert found["points"] == [[0, 0], [0, 0.3333], [0, 0.6667], [1, 0.6667], [1, 1]]
    assert (found["area"], found["good"], found["wrong"]) == (0.6667, 3, 1)


def test_a_long_roc_is_thinned_and_keeps_its_area() -> None:
    labels = [(i * 7919) % 3 > 0 for i in range(3000)]
    scores = [((i * 104729) % 1009) / 1009 + 0.3 * label for i, label in enumerate(labels)]
    found = curves.roc(list(map(int, labels)), scores)
    points = found["points"]
    assert len(points) <= curves.MAX_POINTS
    assert (points[0], points[-1]) == ([0, 0], [1, 1])
    drawn = sum((b[0] - a[0]) * (a[1] + b[1]) / 2 for a, b in pairwise(points))
    assert found["area"] == pytest.approx(roc_auc_score(labels, scores), abs=1e-4)
    assert drawn == pytest.approx(found["area"], abs=0.005)


def test_one_class_has_no_roc() -> None:
    assert curves.roc([1, 1], [0.1, 0.2])["why"].endswith("2 are good and 0 wrong.")


def test_reliability_by_hand() -> None:
    bins = curves.reliability([1, 0, 1, 1], [0.05, 0.07, 0.3, 1.0], [0.5])["bins"]
    assert [one[0] for one in bins] == [2, 0, 0, 1, 0, 0, 0, 0, 0, 1]
    assert bins[0][1:3] == [0.06, 0.5]
    assert bins[9][1:3] == [1, 1]
    assert bins[1] == [0, None, None, None, None]


def test_scores_that_are_no_probabilities_have_no_reliability() -> None:
    assert "scores range from -0.5 to 1" in curves.reliability([1, 0], [1.0, 0.5], [-0.5])["why"]


def test_accuracy_by_position() -> None:
    found = run_data(run_of())["runs"][0]["parts"][0]["positions"]
    assert found == {"rows": [["1", 0, 1], ["2", 0, 3], ["3", 1, 1], ["none", 1, 2]]}
    late = [Outcome(Gold(place), (), place) for place in (8, 9, 30)]
    assert curves.by_position(late) == {"rows": [["9", 1, 1], ["10+", 2, 2]]}
    assert "makes no decision" in curves.by_position([Outcome(Gold(1), (), None, undecided=True)])["why"]


def test_the_scale_of_tints_is_centred_on_the_threshold() -> None:
    outcomes = [Outcome(Gold(-1), tuple(place / 100 for place in range(101)), -1)]
    assert curves.scale(outcomes, None) == [0.05, 0.5, 0.95]
    assert curves.scale(outcomes, 0.2) == [0.05, 0.2, 0.95]
    assert curves.scale(outcomes, 2.0) == [0.05, 2, 2]
    assert curves.scale([Outcome(Gold(-1), None, None)], None) == []


def test_runs_over_the_same_traces_share_texts_whatever_their_order() -> None:
    other = [replace(one, scores=one.scores and tuple(1 - score for score in one.scores)) for one in reversed(RECORDS)]
    data = run_data(run_of(), run_of(other))
    assert len(data["sets"]) == 1
    assert len(data["texts"]) == len(RECORDS)
    first, second = (run["parts"][0] for run in data["runs"])
    assert first["set"] == second["set"] == 0
    assert first["scores"][0] == [0.9, 0.8, 0.1]
    assert second["scores"][0] == [0.1, 0.2, 0.9]


def test_a_sample_of_the_traces_is_a_set_of_its_own_with_the_same_texts() -> None:
    data = run_data(run_of(), run_of(RECORDS[:3]))
    assert [one["total"] for one in data["sets"]] == [7, 3]
    assert len(data["texts"]) == 7


def test_the_budget_is_kept_and_the_choice_is_even(monkeypatch: pytest.MonkeyPatch) -> None:
    many = [record(i, (0.123456789, 0.5), -1, -1, texts=["x" * 400, "y" * 400]) for i in range(500)]
    few = [record(i, (0.5, 0.5), -1, -1, name=f"few-{i}") for i in range(5)]
    monkeypatch.setattr(runs, "BUDGET", 100_000)
    data = run_data(run_of(many), run_of(few))
    large, small = data["sets"]
    assert (large["total"], len(small["texts"])) == (500, 5)
    names = [int(data["texts"][place][0].removeprefix("trace-")) for place in large["texts"]]
    assert 80 < len(names) < 120
    gaps = {b - a for a, b in pairwise(names)}
    assert max(gaps) - min(gaps) <= 1
    assert len(escape.json([data["texts"], data["problems"]], markup=False).encode()) < 100_000
    assert data["runs"][0]["parts"][0]["counts"][0] == 500
    assert data["runs"][0]["parts"][0]["scores"][0] == [0.1235, 0.5]


def test_fifty_runs_are_less_than_five_megabytes() -> None:
    parts = [f"task/{name}" for name in ("one", "two", "three", "four")]
    texts = [f"{place} " + "long \\(x < y\\) " * 30 for place in range(6)]
    traces = [
        replace(record(place, (-0.01234567,) * 6, place % 6, 0, texts=texts), part=part)
        for part in parts
        for place in range(250)
    ]
    metrics = dict.fromkeys([*parts, "task"], summary()["results"][PART])
    many = [run_of(traces, f"run-{place}", results=metrics) for place in range(50)]
    row = changed(row_of("alpha", 0.5, 1.0), parts=dict.fromkeys([*parts, "task"], row_of("a", 0.5, 1.0).parts[PART]))
    boards = [Board(part, part, "f1", tuple(Placed(row, "1", run=place) for place in range(50))) for part in row.parts]
    text = page("Many", boards, many)
    assert len(text.encode()) < 5_000_000
    shown = [len(one["texts"]) for one in embedded(text)["sets"]]
    assert all(100 < count <= 250 for count in shown)


def test_a_trace_larger_than_the_budget_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "BUDGET", 100)
    data = run_data(run_of([record(0, (0.5,), -1, -1, texts=["<" * 90])]))
    assert data["sets"] == [{"total": 1, "texts": []}]


def test_no_path_of_the_machine_is_on_the_page() -> None:
    config = {**summary()["config"], "labeler_args": {"checkpoint": "/home/someone/prm"}}
    model = {**summary()["model"], "model": "/home/someone/prm"}
    text = page("A", [], [run_of(config=config, model=model)])
    assert "/home" not in text
    assert "/somewhere" not in text
    assert embedded(text)["runs"][0]["name"] == "cpmi checkpoint=prm"


needs_browser = pytest.mark.skipif(browser.MISSING is not None, reason=str(browser.MISSING))


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[browser.Browser]:
    with browser.Browser(tmp_path_factory.mktemp("chromium")) as one:
        yield one


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a page with two boards, one run behind a row, and published results."""
    path = tmp_path_factory.mktemp("page") / "page.html"
    second = replace(board(ROWS[4:6]), title="another board")
    path.write_text(page("Rewards & more", [board(), second], [run_of()], PUBLISHED), encoding="utf-8")
    return path


FIRST = "document.querySelector('#board-0')"


def scorers(chromium: browser.Browser) -> list[str]:
    """Return the scorers of the first board, in the order that they are shown in, without marks."""
    cells = f"[...{FIRST}.querySelectorAll('tbody th[data-column=scorer]')].map((one) => one.firstChild.textContent)"
    return [str(name).strip("* ") for name in chromium.run(cells)]


def pick(chromium: browser.Browser, select: str, value: str) -> None:
    chromium.run(f"((one) => {{ one.value = '{value}'; one.dispatchEvent(new Event('change')); }})({select})")


def quiet(chromium: browser.Browser, file: Path) -> None:
    assert chromium.messages == []
    assert set(chromium.requests) <= {file.as_uri(), "data:,"}


@needs_browser
def test_a_click_on_a_header_sorts_within_groups_and_changes_no_rank(chromium: browser.Browser, file: Path) -> None:
    chromium.open(file)
    assert scorers(chromium) == ["alpha", "beta", "gamma", "fitted", "prm-a", "prm-b", "prm-c"]
    chromium.click("#board-0 th[data-column=seconds] button")
    assert scorers(chromium) == ["fitted", "beta", "gamma", "alpha", "prm-b", "prm-c", "prm-a"]
    assert chromium.run(f"{FIRST}.querySelector('th[data-column=seconds]').ariaSort") == "ascending"
    assert chromium.run(f"{FIRST}.querySelector('th[data-column=rank]').ariaSort") == "none"
    ranks = chromium.run(f"[...{FIRST}.querySelectorAll('td[data-column=rank]')].map((one) => one.textContent)")
    assert ranks == ["–", "2–3", "2–3", "1", "2", "–", "1"]
    quiet(chromium, file)


@needs_browser
def test_enter_on_a_header_sorts_and_turns_round(chromium: browser.Browser, file: Path) -> None:
    chromium.open(file)
    chromium.run(f"{FIRST}.querySelector('th[data-column=f1] button').focus()")
    chromium.press("Enter")
    assert scorers(chromium)[:4] == ["fitted", "alpha", "beta", "gamma"]
    assert chromium.run(f"{FIRST}.querySelector('th[data-column=f1]').ariaSort") == "descending"
    chromium.press("Enter")
    assert scorers(chromium)[:4] == ["gamma", "beta", "alpha", "fitted"]
    assert chromium.run("document.activeElement.textContent").startswith("F1 (%)")


@needs_browser
def test_filters_by_text_and_kind_hold_for_table_and_scatter(chromium: browser.Browser, file: Path) -> None:
    chromium.open(file)
    points = f"{FIRST}.querySelectorAll('.point').length"
    assert chromium.run(points) == 7
    chromium.type("#board-0 input[type=search]", "PRM")
    assert scorers(chromium) == ["prm-a", "prm-b", "prm-c"]
    assert chromium.run(points) == 3
    assert chromium.run(f"{FIRST}.querySelector('output').textContent") == "3 of 7 rows"
    chromium.type("#board-0 input[type=search]", "a")
    chromium.click("#board-0 .kinds label:nth-of-type(2) input")
    assert scorers(chromium) == ["alpha", "beta", "gamma", "fitted"]
    chromium.type("#board-0 input[type=search]", "no such scorer")
    assert scorers(chromium) == []
    assert "Nothing to draw" in chromium.run(f"{FIRST}.querySelector('.canvas').textContent")
    quiet(chromium, file)


@needs_browser
def test_what_is_not_ranked_says_so(chromium: browser.Browser, file: Path) -> None:
    chromium.open(file)
    texts = chromium.run(f"[...{FIRST}.querySelectorAll('tr.unranked th')].map((one) => one.innerText)")
    assert [" ".join(text.split()) for text in texts] == [
        "fitted* oracle not ranked: its threshold was fitted to these traces",
        "prm-c partial not ranked: 2 of 7 traces have no score",
    ]
    published = chromium.run("document.querySelector('.published').innerText")
    assert "never ranked" in published
    assert "arXiv 2501.07301, Table 7" in published
    assert "47.9" in published
    assert chromium.run("document.querySelectorAll('.published a').length") == 0
    assert "Elsewhere-7B" not in chromium.run(f"{FIRST}.innerText")
    assert chromium.run(f"{FIRST}.querySelectorAll('tbody th a').length") == 1  # the row that has a run


@needs_browser
def test_fronts_hold_one_group_each_and_only_what_is_ranked(chromium: browser.Browser, file: Path) -> None:
    chromium.open(file)
    fronts = chromium.run(f"[...{FIRST}.querySelectorAll('.front')].map((one) => one.dataset.group)")
    assert fronts == ["labeler*", "prm"]
    ranked = "(key) => DATA.boards[0].rows.filter((row) => groupOf(row) === key)"
    front = f"((rows) => paretoFront(rows, (row) => row.metrics.f1[0], (row) => row.cost.seconds, false))(({ranked})"
    assert chromium.run(f"{front}('labeler*')).map((row) => row.scorer)") == ["beta", "alpha"]
    assert chromium.run(f"{front}('prm')).map((row) => row.scorer)") == ["prm-b", "prm-a"]


@needs_browser
def test_a_cost_of_zero_has_a_place_of_its_own(chromium: browser.Browser, file: Path) -> None:
    chromium.open(file)
    facts = "(x) => [x.ticks[0], x.zeros, x.at(0), x.at(1), x.at(100), x.start]"
    axis = chromium.run(f"({facts})(costAxis([0, 1, 100], 0, 500, powerTicks))")
    assert axis[:2] == [0, True]
    assert axis[2] < axis[5] <= axis[3] < axis[4] < 500
    pick(chromium, f"{FIRST}.querySelectorAll('.scatter select')[1]", "generated")
    assert chromium.run(f"{FIRST}.querySelectorAll('.point').length") == 7
    quiet(chromium, file)


@needs_browser
def test_enter_on_a_point_opens_its_run_and_back_returns(chromium: browser.Browser, file: Path) -> None:
    chromium.open(file)
    chromium.click("#board-0 th[data-column=seconds] button")
    chromium.run(f"{FIRST}.querySelector('a.point').focus()")
    chromium.settle()
    tip = chromium.run(f"{FIRST}.querySelector('.tip').innerText")
    assert "alpha*" in tip
    assert "F1 (%) 50.0 (45.0–55.0)" in tip
    assert "wall time 1.7 min" in tip
    chromium.press("Enter")
    chromium.wait("document.querySelector('article.run') !== null")
    assert chromium.run("location.hash") == "#run=0"
    assert chromium.run("document.querySelector('h2').textContent") == "alpha on task"
    assert chromium.run("document.querySelectorAll('.board').length") == 0
    chromium.run("history.back()")
    chromium.wait("document.querySelector('.board') !== null")
    assert scorers(chromium)[0] == "fitted"  # the order is kept
    assert chromium.run("document.activeElement.matches('a.point')")
    quiet(chromium, file)


@needs_browser
def test_the_page_of_a_run(chromium: browser.Browser, file: Path) -> None:
    chromium.open(file, "#run=0")
    text = chromium.run("document.querySelector('article.run').innerText")
    for expected in ("25.0 10.0–50.0 n=7", "fixed:0.5", "1,000 computed", "too_long", "given the reference answer"):
        assert expected in text, expected
    assert chromium.run("document.querySelectorAll('.plot svg .curve').length") == 2
    assert "Values" in text
    quiet(chromium, file)
    chromium.open(file, "#run=99")
    assert "no such run" in chromium.run("document.querySelector('[role=alert]').textContent")


@needs_browser
def test_the_traces_of_a_run(chromium: browser.Browser, file: Path) -> None:
    chromium.open(file, "#run=0&trace=trace-1")
    title = "document.querySelector('.trace h4').textContent"
    assert chromium.run(title).startswith("trace-1 ")
    chromium.press("j")
    chromium.press("j")
    assert chromium.run(title).startswith("trace-3 ")
    chromium.press("k")
    assert chromium.run(title).startswith("trace-2 ")
    assert chromium.run("location.hash") == "#run=0&part=task%2Fone&trace=trace-2"
    chromium.click(".list li:nth-child(5) a")
    assert chromium.run(title).startswith("trace-4 ")
    chromium.press("ArrowDown")
    assert chromium.run(title).startswith("trace-5 ")
    assert "longer than the model's context" in chromium.run("document.querySelector('.trace').innerText")
    chromium.press("ArrowUp")
    assert chromium.run("document.activeElement.textContent").startswith("trace-4")
    steps = chromium.run("[...document.querySelectorAll('.step')].map((one) => [one.dataset.tint, one.innerText])")
    assert [tint for tint, _ in steps] == ["3", "4", "-1"]
    assert "score 0.8" in steps[0][1]
    assert "label: first error" in steps[1][1]
    assert "predicted" in steps[2][1]
    assert "after the first error" in steps[2][1]
    assert chromium.run("document.querySelectorAll('.trace').length") == 1
    quiet(chromium, file)


@needs_browser
def test_traces_by_outcome_and_text(chromium: browser.Browser, file: Path) -> None:
    chromium.open(file, "#run=0")
    names = "[...document.querySelectorAll('.list .name')].map((one) => one.textContent)"
    assert len(chromium.run(names)) == 7
    pick(chromium, "document.querySelector('.traces select')", "right")
    assert chromium.run(names) == ["trace-0", "trace-6"]
    chromium.type(".traces input", "PROBLEM 6")
    assert chromium.run(names) == ["trace-6"]
    assert chromium.run("document.querySelector('.trace h4').textContent").startswith("trace-6")
    chromium.type(".traces input", "6 j k")  # keys that are typed into a field go there
    assert chromium.run("document.querySelector('.traces input').value") == "6 j k"
    assert chromium.run(names) == []


@needs_browser
def test_hostile_texts_do_nothing(chromium: browser.Browser, tmp_path: Path) -> None:
    records = [record(i, (0.5,), -1, -1, texts=[HOSTILE], name=f"{i}{HOSTILE}", problem=HOSTILE) for i in range(3)]
    records.append(replace(record(3, None, -1, None), error=Failure(HOSTILE, HOSTILE)))
    row = changed(row_of(HOSTILE, 0.5, 1.0), settings={HOSTILE: HOSTILE}, note=HOSTILE, model={"name": HOSTILE})
    hostile = Board(PART, HOSTILE, "f1", (Placed(row, HOSTILE, HOSTILE, 0),))
    others = [changed(PUBLISHED[0], scorer=HOSTILE, source=HOSTILE, note=HOSTILE)]
    file = tmp_path / "page.html"
    file.write_text(page(HOSTILE, [hostile], [run_of(records)], others), encoding="utf-8")
    for fragment in ("", "#run=0", "#run=0&trace=%3Cimg%20src=x%20onerror=alert(1)%3E", "#board=</script>"):
        chromium.open(file, fragment)
        assert chromium.run("window.hit ?? null") is None
        assert chromium.run("document.querySelectorAll('img, iframe, body script:not(#data)').length") == 1
        quiet(chromium, file)
    chromium.open(file, "#run=0")
    chromium.press("j")
    assert "<img src=x" in chromium.run("document.querySelector('.step .text').textContent")
    assert chromium.run("document.querySelector('.trace h4').textContent").startswith("1</script>")
    chromium.run("location.reload()")  # the address of the trace leads back to it
    chromium.wait("document.querySelector('.trace h4')?.textContent.startsWith('1</script>') ?? false")
    quiet(chromium, file)


@needs_browser
@pytest.mark.parametrize("fragment", ["", "#run=0"])
def test_a_phone_never_scrolls_the_page_sideways(chromium: browser.Browser, file: Path, fragment: str) -> None:
    chromium.open(file, fragment, size=(360, 740))
    assert chromium.run("[innerWidth, document.documentElement.scrollWidth]") == [360, 360]
    inside = "(one) => one.scrollWidth > one.clientWidth"
    if not fragment:
        assert chromium.run(f"({inside})({FIRST}.querySelector('.scroll'))")
    beyond = "(one) => !one.closest('.scroll, svg') && one.getBoundingClientRect().right > 361"
    wide = f"[...document.querySelectorAll('main *')].filter({beyond})"
    assert chromium.run(f"{wide}.map((one) => one.outerHTML.slice(0, 80))") == []


# For every element with text of its own: its colour against the nearest background that is not transparent.
CONTRAST = """(() => {
  const channel = (value) => (value <= 0.03928 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
  const numbers = (text) => text.match(/[\\d.]+/g).map(Number);
  const luminance = ([r, g, b]) => 0.2126 * channel(r / 255) + 0.7152 * channel(g / 255) + 0.0722 * channel(b / 255);
  const low = [];
  let seen = 0;
  for (const one of document.querySelectorAll("body, body *:not(script)")) {
    const texts = [...one.childNodes].filter((node) => node.nodeType === 3 && node.data.trim());
    if (!texts.length || one.closest("script, noscript") || !one.checkVisibility()) continue;
    let behind = one;
    while (behind && (numbers(getComputedStyle(behind).backgroundColor)[3] ?? 1) === 0) behind = behind.parentElement;
    const style = getComputedStyle(one);
    const front = numbers(one.namespaceURI.includes("svg") ? style.fill : style.color);
    const back = behind ? numbers(getComputedStyle(behind).backgroundColor) : [255, 255, 255];
    const [a, b] = [luminance(front), luminance(back)].sort((x, y) => y - x);
    seen += 1;
    if ((a + 0.05) / (b + 0.05) < 4.5) low.push([one.tagName, one.className, texts[0].data, style.color, back]);
  }
  return [seen, low];
})()"""


@needs_browser
@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("fragment", ["", "#run=0", "#run=0&trace=trace-4"])
def test_contrast_is_enough_for_reading(chromium: browser.Browser, file: Path, fragment: str, dark: bool) -> None:
    chromium.open(file, fragment, dark=dark)
    seen, low = chromium.run(CONTRAST)
    assert seen > 50
    assert low == []


@needs_browser
def test_every_tint_can_be_read_in_light_and_dark(chromium: browser.Browser, file: Path) -> None:
    for dark in (False, True):
        chromium.open(file, "#run=0&trace=trace-4", dark=dark)
        for tint in range(-4, 5):
            chromium.run(f"document.querySelectorAll('.step').forEach((one) => {{ one.dataset.tint = {tint}; }})")
            assert chromium.run(CONTRAST)[1] == []


@needs_browser
def test_the_theme_follows_the_system_until_it_is_chosen(chromium: browser.Browser, file: Path) -> None:
    background = "getComputedStyle(document.body).backgroundColor"
    chromium.open(file)
    light = chromium.run(background)
    chromium.click("#theme")
    dark = chromium.run(background)
    assert light == "rgb(255, 255, 255)"
    assert dark != light
    assert chromium.run("document.getElementById('theme').ariaPressed") == "true"
    chromium.open(file, dark=True)
    assert chromium.run(background) == dark
    chromium.click("#theme")
    assert chromium.run(background) == light


@needs_browser
def test_what_can_be_used_is_reached_by_tab_and_has_a_name(chromium: browser.Browser, file: Path) -> None:
    chromium.open(file)
    chromium.run("document.body.focus()")
    kinds, reached = "thead, .point, .kinds, .scroll, .field, .top", set()
    for _ in range(60):
        chromium.press("Tab")
        reached.add(chromium.run(f"document.activeElement.closest('{kinds}')?.getAttribute('class') ?? 'other'"))
    assert {"top", "field", "kinds", "scroll"} <= reached
    assert any(str(one).startswith("point") for one in reached)
    named = "(one) => one.ariaLabel || one.textContent.trim() || one.labels?.length"
    usable = "[...document.querySelectorAll('a, button, input, select, [tabindex]')]"
    nameless = f"{usable}.filter((one) => !({named})(one))"
    assert chromium.run(f"{nameless}.length") == 0


@needs_browser
def test_a_page_of_nothing(chromium: browser.Browser, tmp_path: Path) -> None:
    file = tmp_path / "page.html"
    file.write_text(page("Empty", []), encoding="utf-8")
    chromium.open(file)
    assert "nothing to show" in chromium.run("document.querySelector('main').textContent")
    quiet(chromium, file)
