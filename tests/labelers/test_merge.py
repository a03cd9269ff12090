"""CPMI-Merge: whose label is whose, one scale over a whole run, and that a run's end does not depend on its course."""

import json

import numpy as np
import pytest
from scripted import (
    TOO_LONG,
    Scripted,
    Sums,
    after_each_step,
    install,
    lines_of,
    random_texts,
    rows_of,
    script,
    trace,
)

import cpmi_eval
from cpmi_eval import registry, settings
from cpmi_eval.cost import Share
from cpmi_eval.execution.guard import score_batch
from cpmi_eval.labelers.cpmi import CPMI
from cpmi_eval.labelers.merge import CPMIMerge
from cpmi_eval.labelers.monte_carlo import MonteCarlo
from cpmi_eval.labelers.normalize import NORMALIZE
from cpmi_eval.protocols import Labeler, SeesAll
from cpmi_eval.record.rows import Row
from cpmi_eval.record.store import Store
from cpmi_eval.types import Failure, Gold, StepScores, Tokens, TraceFailure

TEXTS = script(after_each_step("a", "+-+-") | after_each_step("b", "----") | after_each_step("c", "++++"))
TRACES = [trace("a"), trace("b", 1), trace("c", 2)]


def merged(traces, backend, **how):
    return score_batch(CPMIMerge(**{"mc": "n=4", **how}), traces, backend)


def test_the_first_step_is_mcs_and_the_others_are_cpmis():
    backend = Scripted(TEXTS)
    results = merged(TRACES, backend, cpmi="variant=prefix,n_negatives=2")
    cpmi = score_batch(CPMI("prefix", n_negatives=2), TRACES, Scripted({}))
    for one, first in zip(TRACES, (0.5, 0.0, 1.0), strict=True):
        result = results[one.id]
        assert isinstance(result, StepScores)
        assert result.values == (first, *cpmi[one.id].values[1:])
        assert result.details["mc_first"] == first
        assert tuple(result.details["cpmi"]) == cpmi[one.id].values
        assert result.details["negatives"] == cpmi[one.id].details["negatives"]
        assert result.tokens == cpmi[one.id].tokens + Tokens(40, 16, 8)
        assert result.details["rollouts"] == len(result.samples) == 4
    assert {key[2] for key in backend.drawn} == {1}  # rollouts of first steps alone


@pytest.mark.parametrize("mc", ["n=4,label=hard", {"n": 4, "label": "hard", "schedule": "adaptive"}])
def test_first_labels_may_be_hard(mc):
    results = merged(TRACES, Scripted(TEXTS), mc=mc)
    assert [results[name].details["mc_first"] for name in "abc"] == [1.0, 0.0, 1.0]


def test_settings_are_text_or_a_mapping():
    pairs = [
        (CPMIMerge(cpmi='variant=loo,step_separator="\\n,"', mc="n=3,temperature=1"), "loo"),
        (CPMIMerge(cpmi={"variant": "loo", "step_separator": "\\n,"}, mc={"n": 3, "temperature": 1}), "loo"),
    ]
    for labeler, variant in pairs:
        assert labeler.cpmi.variant == variant
        assert labeler.cpmi.separator == "\n,"
        assert labeler.mc.n == 3
        assert labeler.mc.source.sampling.temperature == 1.0
    typed = settings.parse_pairs('cpmi="variant=loo,weight=0.5",mc="n=3,label=hard",scale=quantile')
    labeler = settings.construct("cpmi-merge labeler", CPMIMerge, typed, seed=4)
    assert (labeler.cpmi.weight, labeler.cpmi.seed, labeler.mc.label, labeler.mc.source.seed) == (0.5, 4, "hard", 4)


def test_capabilities_follow_the_settings(tmp_path):
    file = tmp_path / "rollouts.jsonl"
    file.touch()
    assert CPMIMerge().capabilities == {"loglikelihood", "generate"}
    assert CPMIMerge(mc={"rollouts": str(file)}).capabilities == {"loglikelihood"}
    assert isinstance(CPMIMerge(), Labeler)
    assert isinstance(CPMIMerge(), SeesAll)


def test_failures_stay_failures():
    wordy = trace("b", 1, answer="Evelyn")  # no negatives by rule
    backend = Scripted(TEXTS, failures={("policy", "c", 1): TOO_LONG})
    results = merged([TRACES[0], wordy, TRACES[2], trace("d", answer=None)], backend)
    assert isinstance(results["a"], StepScores)
    assert {name: results[name].failure.kind for name in "bcd"} == {
        "b": "no_negatives",
        "c": "too_long",
        "d": "no_reference",
    }
    assert all(isinstance(results[name], TraceFailure) for name in "bcd")
    assert len(results["b"].samples) == 4  # what was drawn is kept, and counted
    assert results["b"].tokens == Tokens(40, 16, 8)
    assert results["c"].tokens.requested > 0
    assert results["d"].tokens == Tokens()


def row(first=None, *rest, own=99.0):
    basis = ("t", "shop/a")
    if first is None:
        failed = Failure("too_long", "it is")
        return Row(*basis, None, None, Gold(-1), failed, Share.nothing(), {"cpmi": [9.0]})
    scores, details = (7.0,) * (1 + len(rest)), {"mc_first": first, "cpmi": [own, *rest]}
    return Row(*basis, scores, None, Gold(-1), None, Share.nothing(), details)


ROWS = [row(0.0, 1.0, 3.0), row(), row(0.5), row(1.0, 3.0)]


def test_zsig_by_hand():
    # First labels 0, 1/2, 1: median 1/2, MAD 1/2, so z = -+1/1.4826 = -+0.674491, whose sigmoid is 0.337492, 0.662508.
    # Others 1, 3, 3: median 3, MAD 0, in whose place 1.253314 * (2/3) = 0.835543; z = -2/0.835543 = -2.393654.
    finished = CPMIMerge(scale="zsig").finish(ROWS)
    assert finished[1] is None
    assert finished[0] == pytest.approx([0.337492, 0.083656, 0.5], abs=2e-6)
    assert finished[2] == pytest.approx([0.5])
    assert finished[3] == pytest.approx([0.662508, 0.5], abs=2e-6)


def test_quantile_by_hand():
    # ranks 1, 2, 3 and 1, 2.5, 2.5 of three each
    finished = CPMIMerge(scale="quantile").finish(ROWS)
    assert finished[1] is None
    assert finished[0] == pytest.approx([0.5 / 3, 0.5 / 3, 2 / 3])
    assert finished[2] == pytest.approx([0.5])
    assert finished[3] == pytest.approx([2.5 / 3, 2 / 3])


@pytest.mark.parametrize("scale", ["zsig", "quantile"])
def test_scores_that_say_nothing_are_one_half(scale):
    labeler = CPMIMerge(scale=scale)
    assert labeler.finish([row(0.25), row(0.25)]) == [[0.5], [0.5]]
    assert labeler.finish([row(), row()]) == [None, None]
    assert labeler.finish([]) == []
    assert labeler.finish([row(1.0, 0.1, 0.2)])[0][0] == 0.5


def test_the_cpmi_reward_of_a_first_step_is_left_out_of_the_scale():
    one, other = ([row(0.0, 1.0, own=first), row(1.0, 2.0)] for first in (-1e9, 5.0))
    assert CPMIMerge().finish(one) == CPMIMerge().finish(other)


class Stopping(Scripted):
    """Is interrupted after some calls, as by Ctrl-C."""

    calls_left = None

    def loglikelihood(self, requests):
        cls = type(self)
        if cls.calls_left is not None:
            if cls.calls_left == 0:
                raise KeyboardInterrupt
            cls.calls_left -= 1
        return super().loglikelihood(requests)


@pytest.fixture
def evaluate(tmp_path, monkeypatch):
    install(monkeypatch, Stopping, texts=random_texts(), calls_left=None)

    def run(folder, scale="zsig", **options):
        options = {"batch_size": 2, "log_samples": True, **options}
        how = options.pop("labeler_args", {"cpmi": "variant=prefix", "mc": {"n": 8}})
        return cpmi_eval.evaluate(
            "cpmi-merge",
            "sums",
            output_path=str(tmp_path / folder),
            backend="scripted",
            labeler_args={**how, "scale": scale},
            **options,
        )

    yield run
    registry.entries.cache_clear()


KEPT = ("id", "task", "scores", "prediction", "gold", "error", "details")


@pytest.mark.parametrize("scale", ["zsig", "quantile"])
def test_samples_hold_final_scores(evaluate, scale):
    result = evaluate("run", scale)
    assert result.failed == 0
    assert tuple(lines_of(result.path / "samples.jsonl")) == result.rows
    normalize = NORMALIZE[scale]
    cpmi = score_batch(CPMI("prefix"), Sums.traces, Scripted({}))
    mc = score_batch(MonteCarlo(), Sums.traces, Scripted(random_texts()))
    first = normalize(np.array([mc[one.id].values[0] for one in Sums.traces]))
    rest = iter(normalize(np.array([value for one in Sums.traces for value in cpmi[one.id].values[1:]])))
    for got, one, own in zip(result.rows, Sums.traces, first, strict=True):
        expected = [own, *(next(rest) for _ in one.steps[1:])]
        assert got["scores"] == pytest.approx(expected)
        assert all(0.0 < score < 1.0 for score in got["scores"])
        wrong = [i for i, score in enumerate(got["scores"]) if score < 0.5]
        assert got["prediction"] == (wrong[0] if wrong else -1)


def test_reading_a_finished_run_changes_nothing(evaluate):
    first = evaluate("run")
    before = {path.name: path.read_bytes() for path in first.path.iterdir() if path.is_file()}
    again = evaluate("run")
    assert again.rows == first.rows
    assert {path.name: path.read_bytes() for path in first.path.iterdir() if path.is_file()} == before
    assert len(Stopping.opened) == 1


@pytest.mark.parametrize("calls", [0, 1, 2])
@pytest.mark.parametrize("scale", ["zsig", "quantile"])
def test_an_interrupted_run_ends_as_an_undisturbed_one(evaluate, monkeypatch, scale, calls):
    undisturbed = evaluate("undisturbed", scale)
    monkeypatch.setattr(Stopping, "calls_left", calls)
    with pytest.raises(KeyboardInterrupt):
        evaluate("run", scale)
    monkeypatch.setattr(Stopping, "calls_left", None)
    path = undisturbed.path.parent / "run"
    if calls:
        assert len(lines_of(path / "samples.jsonl")) == 2 * calls
    resumed = evaluate("run", scale)
    assert rows_of(resumed, KEPT) == rows_of(undisturbed, KEPT)
    assert resumed.results == undisturbed.results
    assert lines_of(path / "rollouts.jsonl") == lines_of(undisturbed.path / "rollouts.jsonl")


def test_a_run_killed_before_its_final_scores_gets_them(evaluate, monkeypatch):
    undisturbed = evaluate("undisturbed")

    def killed(self, rows):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Store, "replace_rows", killed)
        with pytest.raises(KeyboardInterrupt):
            evaluate("run")
    path = undisturbed.path.parent / "run"
    raw = lines_of(path / "samples.jsonl")
    assert [one["scores"][0] for one in raw] == [one["details"]["mc_first"] for one in raw]
    assert not (path / "results.json").exists()
    opened = len(Stopping.opened)
    assert rows_of(evaluate("run"), KEPT) == rows_of(undisturbed, KEPT)
    assert len(Stopping.opened) == opened  # all traces were scored


def test_final_rows_and_raw_ones_mix(evaluate):
    """A finished run that loses its last rows: those left have final scores, yet count as what they were."""
    first = evaluate("run")
    samples = first.path / "samples.jsonl"
    lines = samples.read_bytes().splitlines(keepends=True)
    samples.write_bytes(b"".join(lines[:3]) + lines[3][:30])
    again = evaluate("run")
    assert rows_of(again, KEPT) == rows_of(first, KEPT)


def test_batches_do_not_matter(evaluate):
    runs = [evaluate(f"run{size}", batch_size=size) for size in (1, 4, "auto")]
    assert rows_of(runs[0], KEPT) == rows_of(runs[1], KEPT) == rows_of(runs[2], KEPT)


def test_settings_as_text_and_as_a_mapping_score_alike(evaluate):
    text = evaluate("text", labeler_args={"cpmi": "variant=loo,n_negatives=2", "mc": "n=4,label=hard"})
    mapping = evaluate(
        "mapping", labeler_args={"cpmi": {"variant": "loo", "n_negatives": 2}, "mc": {"n": 4, "label": "hard"}}
    )
    assert rows_of(text, KEPT) == rows_of(mapping, KEPT)
    assert rows_of(text) != rows_of(evaluate("other"))


def test_failed_rows_are_not_on_the_scale(evaluate, monkeypatch):
    class Failing(Stopping):
        def __init__(self, *args, **how):
            super().__init__(*args, failures={("policy", "t2", 1): TOO_LONG}, **how)

    whole = evaluate("whole")
    monkeypatch.setattr("test_merge.Stopping", Failing)
    result = evaluate("run")
    failed = result.rows[2]
    assert (failed["scores"], failed["prediction"], failed["error"]["kind"]) == (None, None, "too_long")
    assert result.summary["errors"] == {"too_long": 1}
    rest = [row for row in whole.scored if row.id != "t2"]
    expected = CPMIMerge().finish(rest)
    assert [row["scores"] for row in result.rows if row["id"] != "t2"] == expected
    assert evaluate("run").rows == result.rows
    assert json.loads((result.path / "results.json").read_text(encoding="utf-8")) == result.summary


def test_first_steps_from_recorded_rollouts(evaluate):
    first = evaluate("run")
    file = str(first.path / "rollouts.jsonl")
    again = evaluate("again", labeler_args={"cpmi": "variant=prefix", "mc": {"rollouts": file}})
    assert rows_of(again) == rows_of(first)
