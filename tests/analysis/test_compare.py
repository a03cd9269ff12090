"""Several labelers on one meter: what they share, what is relative to what, and what becomes of one that fails."""

import json
import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Self

import pytest
import shop
import snapshot
from click.testing import CliRunner
from commandline import Cli
from hypothesis import given
from hypothesis import strategies as st
from shop import Register

import cpmi_eval
from cpmi_eval import Item, Progress, StepScores, Tokens, Trace, cost
from cpmi_eval.analysis.compare import Comparison, Pool, Row, parse_specs
from cpmi_eval.cli import cli as program
from cpmi_eval.cli import main
from cpmi_eval.errors import DataError, ModelError, StoreError, UnknownNameError, UsageError
from cpmi_eval.protocols import Backend, BackendOptions, LoadOptions
from cpmi_eval.record.model import ModelDescription
from cpmi_eval.reports.compare import compare_report, relative
from cpmi_eval.reports.grid import markdown
from cpmi_eval.types import Failure, Scored, TaskData, TraceFailure


class Clock:
    """Time that passes only where a stub says so; the processor is busy on two cores."""

    now = 0.0

    def perf_counter(self) -> float:
        return self.now

    def process_time(self) -> float:
        return 2 * self.now


CLOCK = Clock()


class Shop(shop.Shop):
    """The shop with 3 and 5 traces."""

    content: ClassVar[list[Item]] = [*shop.items("a", 3), *shop.items("b", 5)]

    def load(self, options: LoadOptions) -> TaskData:
        if options.data_dir is not None:
            raise DataError(f"{options.data_dir} has no shop")
        return super().load(options)


class Counting(shop.Counting):
    """Takes 8 seconds to load and one to warm up."""

    device: ClassVar[str] = "cpu"
    opened: ClassVar[list[BackendOptions]] = []
    peak = 0

    @classmethod
    def open(cls, options: BackendOptions) -> Self:
        CLOCK.now += 8
        made = super().open(options)
        if options.model == "broken":
            raise ModelError("the weights of 'broken' are damaged")
        return made

    def describe(self) -> ModelDescription:
        return replace(super().describe(), device=self.device)

    def prepare(self, capabilities: frozenset[str]) -> None:
        CLOCK.now += 1
        self.peak = 0

    def peak_memory_bytes(self) -> int:
        return self.peak


class Paid:
    """Costs what its settings say for each trace; ``fails`` and ``stops`` name traces by pattern."""

    name: ClassVar[str] = "paid"
    summary: ClassVar[str] = "costs what it is told to"
    kind: ClassVar[str] = "labeler"
    needs: ClassVar[frozenset[str]] = frozenset({"answer"})
    native_threshold: float | None = 0.5
    interrupted_at: ClassVar[str] = ""
    has_key: ClassVar[bool] = False
    scored: ClassVar[list[tuple[float, str]]] = []

    def __init__(
        self,
        seconds: float = 1,
        generated: int = 0,
        memory: int = 1000,
        fails: str = "-",
        kind: str = "too_long",
        stops: str = "-",
        asks: str = "loglikelihood",
    ) -> None:
        self.seconds, self.generated, self.memory = seconds, generated, memory
        self.fails, self.failure, self.stops = fails, kind, stops
        self.capabilities = frozenset({asks})

    def score(self, traces: Sequence[Trace], backend: Backend | None) -> Iterator[Scored]:
        for trace in traces:
            if trace.id == self.interrupted_at:
                raise KeyboardInterrupt
            if re.match(self.stops, trace.id) and not self.has_key:
                raise UsageError("the judge needs a key: set JUDGE_KEY")
            self.scored.append((self.seconds, trace.id))
            CLOCK.now += self.seconds
            backend.peak = max(backend.peak, self.memory)
            tokens = Tokens(10, 4, self.generated)
            if re.match(self.fails, trace.id):
                yield TraceFailure(trace.id, Failure(self.failure, "it says why"), tokens)
            else:
                yield StepScores(trace.id, (1.0, 0.0 if trace.id == "a1" else 1.0), tokens)


class Critic(Paid):
    kind: ClassVar[str] = "critic"
    needs: ClassVar[frozenset[str]] = frozenset()


class Free(shop.Even):
    native_threshold: float | None = None


@pytest.fixture(autouse=True)
def stubs(plain: None, register: Register, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, labeler in {"paid": Paid, "mc": Paid, "critic": Critic, "free": Free}.items():
        register("labelers", name, labeler)
    register("tasks", "shop", Shop)
    register("backends", "counting", Counting)
    monkeypatch.setattr(cost, "time", CLOCK)
    monkeypatch.setattr(CLOCK, "now", 0.0, raising=False)
    monkeypatch.setattr(Counting, "opened", [])
    monkeypatch.setattr(Paid, "scored", [])


def go(labelers: str | list[str], **options: Any) -> Comparison:
    defaults = {"backend": "counting", "batch_size": 1, "output_path": "out"}
    return cpmi_eval.compare(labelers, "shop", **{**defaults, **options})


def by_name(comparison: Comparison) -> dict[str, Row]:
    return {row.labeler: row for row in comparison.rows}


def kept() -> dict[str, Any]:
    return json.loads(Path("out/compare.json").read_text(encoding="utf-8"))


def samples(row: Row) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (row.path / "samples.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def cli(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> Cli:
    monkeypatch.setattr(logging.getLogger("cpmi_eval"), "handlers", [])  # each call's stderr is another
    command = ("compare", "--task", "shop", "--backend", "counting", "--batch_size", "1", "--output_path", "out")
    return lambda labelers, *args: cli(*command, "--labelers", labelers, *args)


SPECS = {
    "mc": [("mc", {})],
    " mc , cpmi-merge ,": [("mc", {}), ("cpmi-merge", {})],
    "cpmi,cpmi(sampled=8),mc(n=8)": [("cpmi", {}), ("cpmi", {"sampled": 8}), ("mc", {"n": 8})],
    "mc()": [("mc", {})],
    "judge (votes=8, top-p=0.9)": [("judge", {"votes": 8, "top_p": 0.9})],
    'cpmi(target="So, (a) or \\"b\\": {answer}",chat=true),pav': [
        ("cpmi", {"target": 'So, (a) or "b": {answer}', "chat": True}),
        ("pav", {}),
    ],
}


@pytest.mark.parametrize(("text", "expected"), SPECS.items(), ids=SPECS.keys())
def test_specs(text: str, expected: list[tuple[str, dict[str, Any]]]) -> None:
    assert [(spec.name, spec.args) for spec in parse_specs(text)] == expected


MALFORMED = {
    "": "no labelers are given", " , ": "stopped at", "mc,,pav": "stopped at ',pav'", "mc(n=8": "stopped at 'mc(n=8'",
    "mc(n=8))": r"stopped at 'mc(n=8))'", "mc(n=8) pav": "stopped at 'mc(n=8) pav'", "mc n=8": "stopped at 'mc n=8'",
    "mc(f=(1))": "double quotes around values that hold parentheses", "mc(8)": "labeler 'mc(8)': expected key=value",
    "mc(n=8,n=9)": "labeler 'mc(n=8,n=9)': n is given twice", "mc,pav,mc": "the labeler 'mc' is given twice",
    "mc,mc()": "the labeler 'mc()' is given twice",
    "mc(a=1,b=x),mc(b=x, a=1)": "the labeler 'mc(b=x, a=1)' is given twice",
}  # fmt: skip


@pytest.mark.parametrize(("text", "message"), MALFORMED.items(), ids=MALFORMED.keys())
def test_malformed_specs(text: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_specs(text)
    assert message in str(caught.value)


NAMES = st.from_regex(r"[a-z][a-z0-9-]{0,8}", fullmatch=True)
KEYS = st.from_regex(r"[a-z_][a-z0-9_]{0,8}", fullmatch=True)
VALUES = st.integers() | st.booleans() | st.none() | st.text()


def written(name: str, args: dict[str, Any]) -> str:
    def value(one: Any) -> str:
        return '"{}"'.format(re.sub(r'(["\\])', r"\\\1", one)) if isinstance(one, str) else str(one)

    return f"{name}({','.join(f'{key}={value(one)}' for key, one in args.items())})"


@given(st.lists(st.tuples(NAMES, st.dictionaries(KEYS, VALUES, max_size=3)), min_size=1, max_size=4))
def test_any_settings_come_through_and_have_a_folder_of_their_own(specs: list[tuple[str, dict[str, Any]]]) -> None:
    distinct = {json.dumps(spec, sort_keys=True): spec for spec in specs}
    parsed = parse_specs(",".join(written(*spec) for spec in distinct.values()))
    assert [(spec.name, spec.args) for spec in parsed] == list(distinct.values())
    slugs = [spec.slug for spec in parsed]
    assert len(set(slugs)) == len(slugs)
    assert all(re.fullmatch(r"[\w-]{1,70}", slug, flags=re.ASCII) for slug in slugs)


def test_one_model_is_loaded_for_all_and_its_loading_is_no_labelers_cost() -> None:
    comparison = go("mc,paid,paid(seconds=2),free")
    assert len(Counting.opened) == 1
    assert comparison.loading == {"load_data": 0.0, "load_model": 8.0, "warm_up": 3.0}
    costs = [row.costs for row in comparison.rows if row.costs is not None]
    assert [one.seconds for one in costs] == [8.0, 8.0, 16.0, 0.0]
    assert [one.device_seconds for one in costs] == [16.0, 16.0, 32.0, 0.0]
    assert comparison.model == {
        "backend": "counting", "model": "counting", "dtype": "float32", "device": "cpu", "scorer": "trie",
    }  # fmt: skip


def test_a_pool_tells_models_apart_and_does_not_retry() -> None:
    pool = Pool()
    small, large, broken = (BackendOptions(model, {"revision": "main"}) for model in ("small", "large", "broken"))
    assert pool(Counting, small) is pool(Counting, BackendOptions("small", {"revision": "main"}))
    assert pool(Counting, small) is not pool(Counting, large)
    for _ in range(2):
        with pytest.raises(ModelError, match="damaged"):
            pool(Counting, broken)
    assert Counting.opened == [small, large, broken]


def test_all_score_the_same_traces_under_the_native_threshold() -> None:
    comparison = go("mc,paid(seconds=2),free", limit=2, seed=3)
    ids = [[row["id"] for row in samples(row)] for row in comparison.rows]
    assert len(ids[0]) == 4
    assert ids[0] == ids[1] == ids[2]
    assert comparison.traces == 4
    configs = [json.loads((row.path / "manifest.json").read_text())["config"] for row in comparison.rows]
    assert [(one["labeler"], one["labeler_args"]) for one in configs] == [
        ("mc", {}),
        ("paid", {"seconds": 2}),
        ("free", {}),
    ]
    assert {one["threshold"] for one in configs} == {"native"}


def test_runs_are_ordinary_ones(cli: Cli) -> None:
    row = by_name(go("paid(seconds=2)"))["paid(seconds=2)"]
    assert row.path.parent == Path("out")
    result = cpmi_eval.evaluate(
        "paid", "shop", labeler_args={"seconds": 2}, backend="counting", batch_size=1, output_path="alone"
    )
    assert [one["scores"] for one in samples(row)] == [one["scores"] for one in result.rows]
    assert row.metrics == result.summary["results"]["shop"]
    assert row.costs.seconds == result.summary["cost"]["wall_seconds"]["score"]


def test_progress_names_the_labeler() -> None:
    seen: list[Progress] = []
    go("mc,paid(seconds=2)", progress=seen.append)
    assert {step.phase for step in seen} == {
        "mc: loading the model", "mc: scoring", "paid(seconds=2): loading the model", "paid(seconds=2): scoring",
    }  # fmt: skip


def test_relative_costs_are_over_the_traces_that_all_finished() -> None:
    # mc fails a0 and paid fails b0 and b1; they share 5 traces of 8.
    mc, paid = "mc(seconds=10,generated=50,memory=4000,fails=a0)", "paid(generated=2,memory=1000,fails=b0|b1)"
    comparison = go([mc, paid, "free"])
    assert (comparison.shared, comparison.traces) == (5, 8)
    rows = by_name(comparison)
    assert rows[paid].relative == {
        "seconds": pytest.approx((5 * 1) / (5 * 10)),
        "device_seconds": pytest.approx((5 * 2) / (5 * 20)),
        "requested": 1.0,
        "computed": 1.0,
        "generated": pytest.approx(2 / 50),
        "peak_memory_bytes": 0.25,
    }
    assert set(rows[mc].relative.values()) == {1.0}
    assert rows["free"].relative == {
        "seconds": 0.0, "device_seconds": 0.0, "requested": 0.0, "computed": 0.0, "generated": 0.0,
        "peak_memory_bytes": None,
    }  # fmt: skip
    # The absolute figures are over all traces, failures included.
    assert rows[paid].costs.seconds == 8.0
    assert (rows[paid].costs.requested, rows[paid].costs.computed, rows[paid].costs.generated) == (80, 32, 16)
    assert (rows[paid].scored, rows[paid].traces, rows[paid].failed) == (6, 8, 2)


def test_only_the_shared_traces_count(register: Register) -> None:
    # A cost that depends on the trace: the labeler takes a second, and b0, which mc does not finish, is dear.
    class Uneven(Paid):
        def score(self, traces: Sequence[Trace], backend: Backend | None) -> Iterator[Scored]:
            CLOCK.now += 100 * sum(trace.id == "b0" for trace in traces)
            yield from super().score(traces, backend)

    register("labelers", "critic", Uneven)
    rows = by_name(go("mc(seconds=2,fails=b0),critic"))
    assert rows["critic"].costs.seconds == 108.0
    assert rows["critic"].relative["seconds"] == pytest.approx(7 / 14)


def test_a_critique_that_names_no_step_is_finished_and_a_missing_reference_is_not() -> None:
    assert go("mc,paid(fails=a,kind=unparsed)").shared == 8
    assert go("mc,paid(fails=a,kind=no_reference)").shared == 5
    assert go("mc,paid(fails=a,kind=unparsed),critic(fails=b0)").shared == 7


def test_no_shared_trace_no_relative_costs(cli: Cli) -> None:
    comparison = go("mc(fails=a),paid(fails=b)")
    assert comparison.shared == 0
    assert [row.relative for row in comparison.rows] == [None, None]
    assert "no relative costs: no trace was finished by all labelers" in cli("mc(fails=a),paid(fails=b)").out


def test_a_cost_of_zero_divides_nothing() -> None:
    comparison = go("mc(generated=0),paid(generated=5)")
    assert [row.relative["generated"] for row in comparison.rows] == [None, None]
    assert "| 40 (–) |" in markdown(compare_report(comparison))


def test_the_reference_is_the_first_mc_or_the_one_that_is_named() -> None:
    labelers = "paid,mc(seconds=4),mc"
    assert go(labelers).reference == "mc(seconds=4)"
    assert go(labelers, relative_to="mc").reference == "mc(seconds=4)"
    assert go(labelers, relative_to="mc()").reference == "mc"
    other = go(labelers, relative_to="mc( seconds=4)")
    assert other.reference == "mc(seconds=4)"
    assert by_name(other)["paid"].relative["seconds"] == 0.25
    assert by_name(go(labelers, relative_to="paid"))["mc(seconds=4)"].relative["seconds"] == 4.0
    with pytest.raises(
        UnknownNameError, match=r"unknown labeler to be relative to 'pav'.*Known: mc, mc\(seconds=4\), paid"
    ):
        go(labelers, relative_to="pav")


def test_without_a_reference_there_is_nothing_relative_and_a_note(cli: Cli) -> None:
    comparison = go("paid,free")
    assert comparison.reference is None
    assert [row.relative for row in comparison.rows] == [None, None]
    done = cli("paid,free")
    assert done.code == 0
    assert "no relative costs: no labeler here is mc; --relative_to takes one of paid, free" in done.out
    assert "%" not in done.out


def test_seconds_of_a_gpu_are_not_set_against_those_of_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Counting, "device", "cuda:0 (a large accelerator)")
    comparison = go("mc,free,paid")
    rows = by_name(comparison)
    assert [row.device for row in comparison.rows] == ["gpu", "cpu", "gpu"]
    assert rows["mc"].costs.device_seconds == 8.0
    assert rows["free"].relative["device_seconds"] is None
    assert rows["free"].relative["seconds"] == 0.0
    assert rows["paid"].relative["device_seconds"] == 1.0
    header, _, _, free, _ = markdown(compare_report(comparison)).split("\n\n")[1].splitlines()
    assert "GPU time" in header
    assert "| 0.0 s (0%) | – |" in free


RATIOS = {
    None: "–", 0.0: "0%", 0.00001: "<0.01%", 0.0001: "0.01%", 0.00937: "0.94%", 0.0937: "9.4%", 0.0996: "10%",
    0.12: "12%", 1.0: "100%", 7.3: "730%", 9.994: "999%", 9.996: "10x", 12.34: "12x", 1234.5: "1,234x",
}  # fmt: skip


@pytest.mark.parametrize(("value", "text"), RATIOS.items(), ids=RATIOS.values())
def test_relative_costs_as_text(value: float | None, text: str) -> None:
    assert relative(value) == text


def test_a_labeler_that_cannot_be_served_is_a_row_and_the_others_go_on(cli: Cli) -> None:
    comparison = go("paid(asks=generate),mc,paid")
    unable, mc, paid = comparison.rows
    assert "needs generate, which the backend 'counting' does not offer" in unable.failure
    assert (unable.costs, unable.relative, unable.metrics) == (None, None, {})
    assert (unable.kind, unable.uses_reference) == ("labeler", True)
    assert (mc.failure, paid.failure) == (None, None)
    assert comparison.shared == 8
    assert comparison.failed
    done = cli("paid(asks=generate),mc,paid")
    assert done.code == 1
    assert "paid(asks=generate) failed: the labeler 'paid' needs generate" in done.out


def test_one_that_stops_midway_is_a_row_and_goes_on_when_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    labelers = "mc,paid(stops=b1),critic"
    comparison = go(labelers)
    assert by_name(comparison)["paid(stops=b1)"].failure == "the judge needs a key: set JUDGE_KEY"
    assert (comparison.shared, by_name(comparison)["critic"].scored) == (8, 8)
    monkeypatch.setattr(Paid, "scored", [])
    monkeypatch.setattr(Paid, "has_key", True)
    again = go(labelers)
    assert not again.failed
    assert [name for _, name in Paid.scored] == ["b1", "b2", "b3", "b4"]


def test_a_model_that_cannot_be_loaded_fails_those_that_need_it() -> None:
    comparison = go("mc,paid,free", model="broken")
    assert [row.failure for row in comparison.rows] == [*["the weights of 'broken' are damaged"] * 2, None]
    assert len(Counting.opened) == 1
    assert comparison.reference == "mc"
    assert "no relative costs: mc failed; --relative_to takes another labeler" in markdown(compare_report(comparison))


def test_all_may_fail(cli: Cli) -> None:
    done = cli("mc,paid", "--model", "broken")
    assert done.code == 1
    assert done.out.startswith("shop, broken")
    assert kept()["traces"] == 0


def test_failed_rows_make_the_exit_code(cli: Cli) -> None:
    assert cli("mc,paid").code == 0
    assert cli("mc,paid,paid(fails=a,kind=no_reference)").code == 0  # the data's matter
    done = cli("mc,paid,paid(fails=a)")
    assert done.code == 1
    assert "paid(fails=a) left traces without a score: too_long 3" in done.out


@pytest.mark.parametrize(
    ("labelers", "options", "message"),
    [
        ("mc,piad", {}, "unknown labeler 'piad'. Did you mean 'paid'"),
        ("mc,paid(secnds=1)", {}, "unknown paid labeler setting 'secnds'. Did you mean 'seconds'"),
        ("mc,mc", {}, "given twice"),
        ([], {}, "no labelers are given"),
        ("mc", {"backend": "countng"}, "unknown backend 'countng'. Did you mean 'counting'"),
        ("mc", {"model": "absent"}, "no model 'absent'"),
        ("mc", {"limit": 0}, "limit must be"),
        ("mc", {"data_dir": "nowhere"}, "nowhere has no shop"),
        ("mc", {"limt": 3}, "unknown option of compare 'limt'. Did you mean 'limit'"),
        ("mc", {"threshold": "fixed:0.1"}, "unknown option of compare 'threshold'"),
        ("mc", {"labeler_args": {"seconds": 1}}, "unknown option of compare 'labeler_args'"),
    ],
)
def test_wrong_usage_is_refused_before_anything_runs(
    labelers: str | list[str], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError) as caught:
        go(labelers, **options)
    assert message in str(caught.value)
    assert not Path("out").exists()


def test_wrong_usage_on_the_command_line(cli: Cli) -> None:
    for args, message in {
        ("mc,piad",): "unknown labeler 'piad'",
        ("mc(n=8",): "expected NAME or NAME(k=v,...)",
        ("mc", "--relative_to", "pav"): "unknown labeler to be relative to 'pav'",
        ("mc", "--format", "markdown", "--json"): "--json and --format markdown ask for different things",
    }.items():
        done = cli(*args)
        assert (done.code, done.out) == (2, "")
        assert message in done.err
        assert not Path("out").exists()


def test_interrupt_and_go_on(cli: Cli, register: Register, monkeypatch: pytest.MonkeyPatch) -> None:
    class Interrupted(Paid):
        interrupted_at: ClassVar[str] = "b0"

    register("labelers", "critic", Interrupted)
    done = cli("mc,critic(seconds=2),paid(seconds=3)")
    assert (done.code, done.out) == (130, "")
    assert "the same command goes on from there" in done.err
    assert [row["labeler"] for row in kept()["rows"]] == ["mc"]
    assert kept()["labelers"] == ["mc", "critic(seconds=2)", "paid(seconds=3)"]
    register("labelers", "critic", Paid)
    monkeypatch.setattr(Paid, "scored", [])
    done = cli("mc,critic(seconds=2),paid(seconds=3)")
    assert done.code == 0
    both = ["a0", "a1", "a2", "b0", "b1", "b2", "b3", "b4"]
    assert Paid.scored == [*((2, name) for name in both[3:]), *((3, name) for name in both)]
    assert [row["costs"]["seconds"] for row in kept()["rows"]] == [8.0, 16.0, 24.0]
    assert kept()["loading"]["load_model"] == 16.0  # it was loaded in both sessions


def test_what_is_finished_is_not_run_again_and_labelers_can_be_added() -> None:
    first = go("mc,paid")
    again = go("mc,paid")
    assert (len(Paid.scored), len(Counting.opened)) == (16, 1)
    assert again == first
    more = go("critic,mc,paid")
    assert (len(Paid.scored), len(Counting.opened)) == (24, 2)
    assert [row.labeler for row in more.rows] == ["critic", "mc", "paid"]
    assert by_name(more)["paid"] == by_name(first)["paid"]


def test_fresh_repeats_all() -> None:
    go("mc,paid", seed=1)
    comparison = go("mc,paid", seed=2, fresh=True)
    assert len(Paid.scored) == 32
    assert comparison.config["seed"] == 2
    assert Path("out/mc/earlier-1/results.json").is_file()


def test_another_comparison_in_the_same_directory_is_refused() -> None:
    go("mc", seed=1, limit=2)
    before = kept()
    with pytest.raises(StoreError) as caught:
        go("mc,paid", seed=2, limit=3)
    assert "limit: 2 there, 3 now; " in str(caught.value)
    assert "seed: 1 there, 2 now" in str(caught.value)
    assert kept() == before


def test_directories_of_something_else_are_left_alone() -> None:
    Path("other").mkdir()
    Path("other/notes.txt").write_text("mine")
    Path("file").write_text("mine")
    with pytest.raises(StoreError, match="other is not empty and holds no comparison"):
        go("mc", output_path="other")
    with pytest.raises(StoreError, match="file is a file"):
        go("mc", output_path="file")
    with pytest.raises(StoreError, match="cannot be written"):
        go("mc", output_path="file/below")
    assert sorted(Path("other").iterdir()) == [Path("other/notes.txt")]


def test_the_default_directory_is_that_of_what_is_common() -> None:
    first = go("mc", output_path=None).path
    assert re.fullmatch(r"runs/compare-shop-smollm2-135m-[0-9a-f]{8}", str(first))
    assert go("paid,free", output_path=None).path == first
    assert go("mc", output_path=None, limit=2).path != first


def test_runs_on_other_versions_are_not_on_one_meter(monkeypatch: pytest.MonkeyPatch, cli: Cli) -> None:
    assert go("mc,free").mixed == ()
    manifest = Path("out/mc/manifest.json")
    content = json.loads(manifest.read_text())
    manifest.write_text(json.dumps({**content, "versions": {**content["versions"], "torch": "1.0"}}))
    assert go("mc,free").mixed == ("versions",)
    assert "these runs differ in versions, so their costs are not comparable" in cli("mc,free").out


def test_the_document(cli: Cli) -> None:
    done = cli("mc(seconds=2,fails=a0),free", "--json", "--seed", "3")
    document = json.loads(done.out)
    assert document == kept()
    assert document["schema_version"] == 1
    assert (document["shared"], document["traces"]) == (7, 8)
    assert (document["relative_to"], document["reference"]) == ("mc", "mc(seconds=2,fails=a0)")
    assert document["labelers"] == ["mc(seconds=2,fails=a0)", "free"]
    config = document["config"]
    assert (config["task"], config["seed"], config["backend"], config["output_path"]) == ("shop", 3, "counting", "out")
    assert not {"labeler", "labeler_args", "threshold"} & config.keys()
    assert document["versions"]["cpmi-eval"] == cpmi_eval.__version__
    assert {"platform", "processor"} <= document["machine"].keys()
    mc, free = document["rows"]
    assert mc["settings"] == {"seconds": 2, "fails": "a0"}
    assert Path(mc["path"], "results.json").is_file()
    assert (mc["kind"], mc["uses_reference"], mc["failure"], mc["device"]) == ("labeler", True, None, "cpu")
    assert (free["kind"], free["uses_reference"], free["path"]) == ("baseline", False, "out/free")
    assert set(mc["metrics"]) == {"f1", "acc_error", "acc_correct", "step_auc"}
    assert mc["costs"] == {
        "seconds": 16.0, "device_seconds": 32.0, "requested": 80, "computed": 32, "generated": 0,
        "peak_memory_bytes": 1000,
    }  # fmt: skip


def test_the_document_grows_with_every_labeler() -> None:
    written: list[list[str]] = []

    def watch(step: Progress) -> None:
        if step.phase.endswith("loading the model"):
            written.append([row["labeler"] for row in kept()["rows"]])

    go("mc,paid,critic", progress=watch)
    assert written == [[], ["mc"], ["mc", "paid"]]


VARIED = (
    "mc(seconds=450,generated=120000,memory=3400000000),paid(seconds=42.5,generated=7,memory=1700000000,fails=b2),"
    "critic(seconds=8000,generated=1024,memory=3500000000,fails=a1,kind=unparsed),free,paid(asks=generate)"
)


def test_table(cli: Cli) -> None:
    done = cli(VARIED)
    assert done.code == 1
    snapshot.check("compare", done.out)


def test_markdown(cli: Cli) -> None:
    done = cli(VARIED, "--format", "markdown")
    title, table, *notes = done.out.strip().split("\n\n")
    assert title == "shop, 8 traces, smollm2-135m"
    header, rule, *rows = table.splitlines()
    cells = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in (header, rule, *rows)]
    assert {len(line) for line in cells} == {11}
    assert cells[0][:6] == ["labeler", "kind", "AUC", "F1", "wall time", "CPU time"]
    assert cells[3][0] == r"paid\* seconds=42.5, generated=7, memory=1700000000, fails=b2"
    assert cells[3][4:] == [
        "5 min 40 s (9.4%)", "11 min 20 s (9.4%)", "80 (100%)", "32 (100%)", r"56 (\<0.01%)", "1.7 GB (50%)", "7/8",
    ]  # fmt: skip
    assert cells[6][-1] == "failed"
    assert any("over the 7 of 8 traces" in line for line in notes)
    snapshot.check("compare_markdown", done.out)


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(("compare", "--help"))
    assert caught.value.code == 0
    snapshot.check("help_compare", capsys.readouterr().out)


def write(path: Path, content: object) -> str:
    path.write_text(json.dumps(content), encoding="utf-8")
    return str(path)


def test_a_config_file_may_name_the_labelers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    file = write(tmp_path / "c.json", {"labelers": ["random", "length"], "task": "synthetic", "limit": 5})
    result = CliRunner().invoke(program, ["compare", "--config", file, "--output_path", "out", "--json"])
    assert result.exit_code == 0, result.output
    assert [row["name"] for row in json.loads(result.stdout)["rows"]] == ["random", "length"]


def test_a_config_file_with_a_setting_that_would_do_nothing_is_refused(tmp_path: Path) -> None:
    file = write(tmp_path / "c.json", {"labelers": "random", "task": "synthetic", "threshold": "fixed:1"})
    result = CliRunner().invoke(program, ["compare", "--config", file])
    assert result.exit_code == 2
    assert "'threshold'" in result.output


def test_a_runs_manifest_gives_what_compare_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    cpmi_eval.evaluate("length", "synthetic", limit=3, seed=5, output_path=tmp_path / "run")
    manifest = str(tmp_path / "run" / "manifest.json")
    result = CliRunner().invoke(program, ["compare", "--labelers", "random", "--config", manifest, "--json"])
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert (document["config"]["seed"], document["traces"]) == (5, 3)
