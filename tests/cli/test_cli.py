"""The command line: what is asked of it, what it prints where, and the texts people read."""

import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar

import pytest
import snapshot
from commandline import Cli, Outcome
from maderuns import made
from shop import Register

from cpmi_eval import StepScores, __version__
from cpmi_eval.cost import Share
from cpmi_eval.errors import UsageError
from cpmi_eval.plan import RunConfig
from cpmi_eval.record.door import to_lines, write_json
from cpmi_eval.types import Tokens

pytestmark = pytest.mark.usefixtures("plain")

PROGRAM = [sys.executable, "-c", "from cpmi_eval.cli import main; main()"]


RANDOM = ("run", "--labeler", "random", "--task", "synthetic", "--task_args", "n=6")


def config_of(path: str | Path) -> dict[str, Any]:
    return json.loads(Path(path, "manifest.json").read_text(encoding="utf-8"))["config"]


def test_both_spellings(cli: Cli) -> None:
    for dash, path in (("-", "a"), ("_", "b")):
        options = ("labeler_args", "task_args", "model_args", "batch_size", "output_path", "data_dir")
        values = ("", "n=6,max-steps=5", "", "2", path, "nowhere")
        flags = [part for name, value in zip(options, values, strict=True) for part in (f"--{name}", value)]
        done = cli("run", "--labeler", "random", "--task", "synthetic", *(flag.replace("_", dash) for flag in flags))
        assert done.code == 0, done.err
    assert {**config_of("a"), "output_path": None} == {**config_of("b"), "output_path": None}
    assert config_of("a")["task_args"] == {"n": 6, "max_steps": 5}
    assert config_of("a")["batch_size"] == 2


def test_flags_before_environment_before_file_before_defaults(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("run.yaml").write_text("labeler: random\ntask: synthetic\ntask_args: {n: 8}\nlimit: 2\nseed: 2\n")
    monkeypatch.setenv("CPMI_EVAL_SEED", "3")
    monkeypatch.setenv("CPMI_EVAL_LIMIT", "3")
    assert cli("run", "--config", "run.yaml", "--limit", "4", "--output_path", "a").code == 0
    config = config_of("a")
    assert (config["limit"], config["seed"], config["task_args"]) == (4, 3, {"n": 8})
    assert (config["threshold"], config["scorer"]) == ("native", "trie")


def test_prefix_sharing_has_its_old_name_for_one_more_version(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    random = ("run", "--labeler", "random", "--task", "synthetic", "--limit", "2")
    Path("new.yaml").write_text("prefix_sharing: off\n")
    Path("old.yaml").write_text("scorer: pairwise\n")
    new = (("--prefix_sharing", "off"), ("--config", "new.yaml"))
    old = (("--scorer", "pairwise"), ("--config", "old.yaml"))
    for number, how in enumerate((*new, *old)):
        caplog.clear()
        done = cli(*random, *how, "--output_path", str(number))
        assert done.code == 0, done.err
        assert ("scorer pairwise is now prefix_sharing off" in caplog.text) == (how in old)
        assert config_of(str(number))["scorer"] == "pairwise"  # as ever in files: fingerprints stay what they are
    caplog.clear()
    assert cli("run", "--config", "0/manifest.json", "--output_path", "0").code == 0
    assert "is now" not in caplog.text
    monkeypatch.setenv("CPMI_EVAL_SCORER", "pairwise")
    assert cli(*random, "--config", "1/manifest.json", "--prefix-sharing", "on", "--output_path", "on").code == 0
    assert config_of("on")["scorer"] == "trie"
    with pytest.raises(UsageError, match="prefix_sharing must be true or false"):
        RunConfig("random", "synthetic", prefix_sharing="on")


def test_everything_may_come_from_the_environment(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    values = {"LABELER": "constant", "TASK": "synthetic", "TASK_ARGS": "n=5", "SUBSET": "arithmetic", "LIMIT": "0.5"}
    for name, value in {**values, "OUTPUT_PATH": "a", "BATCH_SIZE": "auto"}.items():
        monkeypatch.setenv(f"CPMI_EVAL_{name}", value)
    assert cli("run").code == 0
    config = config_of("a")
    assert (config["labeler"], config["subset"], config["limit"]) == ("constant", ["arithmetic"], 0.5)


@pytest.mark.parametrize("kind", ["yaml", "json"])
def test_config_file_with_either_spelling_and_text_values(cli: Cli, kind: str) -> None:
    settings = {"labeler": "random", "task": "synthetic", "task-args": "n=6,max_steps=4", "subset": ["arithmetic"]}
    text = json.dumps(settings) if kind == "json" else "\n".join(f"{k}: {json.dumps(v)}" for k, v in settings.items())
    Path(f"run.{kind}").write_text(text)
    assert cli("run", "--config", f"run.{kind}", "--output_path", "a").code == 0
    assert config_of("a")["task_args"] == {"n": 6, "max_steps": 4}


def test_a_manifest_is_a_config_file_that_gives_the_same_run(cli: Cli) -> None:
    options = ("--labeler_args", "", "--limit", "0.5", "--seed", "7", "--threshold", "fixed:0.4", "--batch-size", "2")
    assert cli(*RANDOM, *options, "--output_path", "a").code == 0
    assert cli("run", "--config", "a/manifest.json", "--output_path", "b").code == 0
    assert {**config_of("b"), "output_path": "a"} == config_of("a")
    a, b = (json.loads(Path(path, "results.json").read_text()) for path in "ab")
    assert a["results"] == b["results"]
    assert cli("run", "--config", "a/manifest.json", "--output_path", "a").code == 0  # and resumes it


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("- 1", "Expected `object`"), ("", "Expected `object`"), ("a: [", "is no YAML"),
        ("labeler_args: 5", "labeler_args"), ("labeler_args: [variant]", "labeler_args"),
        ("task_args: [n]", "task_args"), ("task_args: 3", "task_args"), ("subset: 5", "subset"),
        ("limit: [1]", "limit"), ("limit: yes", "limit"), ("batch_size: 2.5", "batch_size"), ("seed: 1.5", "seed"),
        ("seed: one", "seed"), ("lables: 1", "unknown setting in run.yaml 'lables'. Did you mean"),
    ],
)  # fmt: skip
def test_config_files_that_make_no_sense(cli: Cli, content: str, message: str) -> None:
    Path("run.yaml").write_text(content)
    done = cli(*RANDOM[:5], "--config", "run.yaml", "--output_path", "a")
    assert (done.code, done.out) == (2, "")
    assert message in done.err


def test_config_file_that_is_not_there(cli: Cli) -> None:
    done = cli("run", "--config", "absent.yaml")
    assert done.code == 2
    assert "config file absent.yaml does not exist" in done.err


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("seed: 2026-99-99", "whole number"),
        ("seed: 0x" + "f" * 5000, "at most 64 bits"),
        ("seed: " + "9" * 5000, "is no YAML"),
        ("labeler_args: {1: 2}", "the settings of labeler_args have names, not 1"),
        ("model: " + "x" * 5000, "File name too long"),
        ("output_path: " + "x" * 5000, "File name too long"),
        ("{a: " * 5000, "is nested too deeply"),
        ("seed: !!python/name:os.system", "is no YAML"),
        ("- a\n- b", "Expected `object`, got `array`"),
    ],
)
def test_whatever_a_config_file_holds_is_one_line(cli: Cli, text: str, complaint: str) -> None:
    Path("c.yaml").write_text(text)
    done = cli("run", "--config", "c.yaml", "--labeler", "cpmi", "--task", "synthetic")
    assert (done.code, done.out) == (2, "")
    assert complaint in done.err
    assert "Traceback" not in done.err


CPMI = ("run", "--labeler", "cpmi", "--task", "synthetic")
UNKNOWN = {
    "command": (("leaderbord",), "leaderbord"),
    "option": ((*RANDOM, "--limt", "3"), "Did you mean '--limit'"),
    "task": (("run", "--labeler", "random", "--task", "syntetic"), "unknown task 'syntetic'. Did you mean 'synthetic'"),
    "labeler": (
        ("run", "--labeler", "radnom", "--task", "synthetic"),
        "unknown labeler 'radnom'. Did you mean 'random'",
    ),
    "backend": ((*CPMI, "--backend", "hff"), "unknown backend 'hff'. Did you mean 'hf'"),
    "subset": ((*RANDOM, "--subset", "arithmetics"), "unknown subset 'arithmetics'. Did you mean 'arithmetic'"),
    "prefix sharing": ((*CPMI, "--prefix_sharing", "of"), "unknown prefix_sharing 'of'. Did you mean 'off'"),
    "labeler setting": (
        (*CPMI, "--labeler_args", "varaint=loo"),
        "unknown cpmi labeler setting 'varaint'. Did you mean 'variant'",
    ),
    "value of a labeler setting": (
        (*CPMI, "--labeler_args", "variant=prefx"),
        "unknown variant 'prefx'. Did you mean 'prefix'",
    ),
    "task setting": ((*RANDOM[:5], "--task_args", "max_step=4"), "Did you mean 'max_steps'"),
    "model argument": (
        (*CPMI, "--model_args", "revison=main"),
        "unknown model argument 'revison'. Did you mean 'revision'",
    ),
    "kind of thing": (("ls", "task"), "Did you mean 'tasks'"),
}


@pytest.mark.parametrize(("args", "message"), UNKNOWN.values(), ids=UNKNOWN.keys())
def test_unknown_names(cli: Cli, args: tuple[str, ...], message: str) -> None:
    done = cli(*args)
    assert (done.code, done.out) == (2, "")
    assert message in done.err
    assert "Traceback" not in done.err
    assert not Path("runs").exists()


WRONG = {
    "no labeler": (("run", "--task", "synthetic"), "say what scores the steps"),
    "limit": ((*RANDOM, "--limit", "many"), "limit must be a whole number or a share below 1, not 'many'"),
    "limit of one": ((*RANDOM, "--limit", "1.0"), "limit must be a whole number of at least 1 or a share below 1"),
    "seed": ((*RANDOM, "--seed", "-1"), "seed must be a whole number at least 0"),
    "batch size": ((*RANDOM, "--batch_size", "big"), "batch size must be auto or a whole number, not 'big'"),
    "threshold": ((*RANDOM, "--threshold", "fixd:1"), "use native, fixed:x, dev:SUBSET"),
    "pairs": ((*RANDOM[:5], "--task_args", "n"), "expected key=value[,key=value...], stopped at 'n'"),
    "pairs twice": ((*RANDOM[:5], "--task_args", "n=1,n=2"), "n is given twice"),
    "model": ((*CPMI, "--model", "./absent"), "no model './absent'"),
    "negative count": ((*CPMI, "--labeler_args", "n_negatives=0"), "n_negatives must be a whole number at least 1"),
    "no run": (("show", "absent"), "absent is not a run directory: it has no manifest.json"),
    "a model beside a PRM": (
        ("run", "--prm", "x", "--model", "y", "--task", "synthetic"),
        "--model would do nothing beside --prm",
    ),
    "two scorers": (("run", "--prm", "x", "--labeler", "cpmi", "--task", "synthetic"), "both say what scores"),
    "a spec without a PRM": (
        ("run", "--labeler", "cpmi", "--prm_spec", "trl", "--task", "synthetic"),
        "give --prm too",
    ),
    "no run to rank": (("leaderboard", "show", "absent"), "absent is not a run directory"),
}


@pytest.mark.parametrize(("args", "message"), WRONG.values(), ids=WRONG.keys())
def test_wrong_usage(cli: Cli, args: tuple[str, ...], message: str) -> None:
    done = cli(*args)
    assert (done.code, done.out) == (2, "")
    assert message in done.err
    assert not Path("runs").exists()


def test_version(cli: Cli) -> None:
    assert cli("--version") == (0, f"cpmi-eval, version {__version__}\n", "")


def environment(**more: str) -> dict[str, str]:
    # One thread: threads that wait for each other are very slow on a busy machine, and the models are tiny.
    return {**os.environ, "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", **more}


def program(*args: str, **more: str) -> Outcome:
    done = subprocess.run(
        [*PROGRAM, *args], env=environment(**more), capture_output=True, text=True, check=False, timeout=120
    )
    return Outcome(done.returncode, done.stdout, done.stderr)


def test_json_is_one_document_and_nothing_else(cli: Cli) -> None:
    done = cli(*RANDOM, "--json", "--output_path", "a")
    document = json.loads(done.out)
    assert (done.code, done.err) == (0, "")
    assert document == {"path": "a", **json.loads(Path("a/results.json").read_text())}
    shown = json.loads(cli("show", "a", "--json").out)
    assert {key: shown[key] for key in document} == document
    for args in (("ls", "tasks", "--json"), ("leaderboard", "show", "a", "--json"), ("show", "a", "--json")):
        done = cli(*args)
        json.loads(done.out)
        assert (done.code, done.err) == (0, "")


def test_with_a_model_too_stdout_is_the_document_and_stderr_is_empty(checkpoint: Path) -> None:
    args = ("--model", str(checkpoint), "--dtype", "float32", "--task_args", "n=3", "--output_path", "a", "--json")
    done = program(*CPMI, *args)
    document = json.loads(done.out)
    assert done.code == 0
    assert document["coverage"]["synthetic/arithmetic"]["scored"] == 3
    assert document["model"]["architecture"] == "LlamaForCausalLM"
    assert document["cost"]["tokens"]["computed"] < document["cost"]["tokens"]["requested"]
    assert done.err == ""


def test_progress_is_drawn_on_a_terminal_and_never_on_stdout() -> None:
    master, slave = pty.openpty()
    with subprocess.Popen(
        [*PROGRAM, *RANDOM, "--json"], env=environment(TERM="xterm"), stdout=subprocess.PIPE, stderr=slave
    ) as process:
        os.close(slave)
        drawn = b""
        with ThreadPoolExecutor(1) as pool:
            assert process.stdout is not None
            out = pool.submit(process.stdout.read)
            try:
                while chunk := os.read(master, 4096):
                    drawn += chunk
            except OSError:
                pass  # how Linux says that the other end is closed
    os.close(master)
    json.loads(out.result())
    assert b"\x1b" not in out.result()
    assert b"scoring" in drawn


def test_errors_go_to_stderr_without_a_traceback() -> None:
    done = program("run", "--labeler", "radnom", "--task", "synthetic")
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("Error: unknown labeler 'radnom'. Did you mean 'random'?")


def test_fresh_says_where_the_earlier_run_is(cli: Cli) -> None:
    cli(*RANDOM, "--output_path", "a")
    done = cli(*RANDOM, "--seed", "1", "--output_path", "a")
    assert done.code == 2
    assert "seed: 0 there, 1 now" in done.err
    assert cli(*RANDOM, "--seed", "1", "--output_path", "a", "--fresh").code == 0
    assert Path("a", "earlier-1", "results.json").is_file()


HEAVY = ("torch", "transformers", "datasets", "sklearn", "pandas", "numpy", "rich", "sympy")


@pytest.mark.parametrize("args", [("--help",), ("run", "--help"), ("--version",), ("run",)])
def test_nothing_heavy_is_imported_to_say_how_it_works(args: tuple[str, ...]) -> None:
    script = (
        "import sys\nfrom cpmi_eval.cli import main\n"
        "try:\n    main(sys.argv[1:])\nexcept SystemExit:\n    pass\n"
        f"print('HEAVY', [name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *args], env=environment(), capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "HEAVY []"


def test_a_refused_run_imports_no_torch() -> None:
    script = (
        "import sys\nfrom cpmi_eval.cli import main\n"
        "try:\n    main(sys.argv[1:])\nexcept SystemExit as end:\n    print(end.code, 'torch' in sys.modules)\n"
    )
    args = (*CPMI, "--model", "./absent")
    done = subprocess.run(
        [sys.executable, "-c", script, *args], env=environment(), capture_output=True, text=True, check=True
    )
    assert done.stdout == "2 False\n"


class Nervous:
    """Raises at the third trace, as often as it is told to."""

    name: ClassVar[str] = "nervous"
    summary: ClassVar[str] = "raises"
    kind: ClassVar[str] = "baseline"
    needs: ClassVar[frozenset[str]] = frozenset()
    capabilities: frozenset[str] = frozenset()
    native_threshold: float | None = 0.5
    raises: ClassVar[BaseException | None] = None

    def score(self, traces: Any, backend: Any) -> Iterator[StepScores]:
        for trace in traces:
            if trace.id == "synthetic-0002" and self.raises is not None:
                raise self.raises
            yield StepScores(trace.id, (1.0,) * len(trace.steps))


NERVOUS = ("run", "--labeler", "nervous", "--task", "synthetic", "--task_args", "n=5", "--output_path", "a")


def test_an_interrupted_run_keeps_its_rows_and_goes_on(
    cli: Cli, register: Register, monkeypatch: pytest.MonkeyPatch
) -> None:
    register("labelers", "nervous", Nervous)
    monkeypatch.setattr(Nervous, "raises", KeyboardInterrupt())
    done = cli(*NERVOUS, "--batch_size", "1")
    assert (done.code, done.out) == (130, "")
    assert "the same command goes on from there" in done.err
    rows = Path("a", "samples.jsonl").read_text().splitlines()
    assert [json.loads(row)["id"] for row in rows] == ["synthetic-0000", "synthetic-0001"]
    monkeypatch.setattr(Nervous, "raises", None)
    assert cli(*NERVOUS, "--batch_size", "1").code == 0
    assert Path("a", "samples.jsonl").read_text().splitlines()[:2] == rows


def test_show_of_an_unfinished_run_says_how_to_finish_it(
    cli: Cli, register: Register, monkeypatch: pytest.MonkeyPatch
) -> None:
    register("labelers", "nervous", Nervous)
    monkeypatch.setattr(Nervous, "raises", UsageError("no key"))
    assert cli(*NERVOUS, "--batch_size", "1").code == 2
    done = cli("show", "a")
    assert (done.code, done.out) == (2, "")
    assert "a is not finished" in done.err
    assert "synthetic-0001" in cli("show", "a", "--trace", "synthetic-0001").out
    refused = cli("leaderboard", "show", "a")
    assert refused.code == 2
    assert "a is not finished" in refused.err
    # The command it proposes works.
    command = re.search(r"^cpmi-eval (run .*)$", done.err, re.MULTILINE)
    assert command is not None
    monkeypatch.setattr(Nervous, "raises", None)
    assert cli(*command[1].split()).code == 0
    assert cli("show", "a").code == 0


def test_failed_rows_are_shown_and_make_the_exit_code(
    cli: Cli,
    register: Register,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    register("labelers", "nervous", Nervous)
    monkeypatch.setattr(Nervous, "raises", ZeroDivisionError("division by zero"))
    done = cli(*NERVOUS)
    assert done.code == 1
    assert "synthetic-0002: ZeroDivisionError: division by zero" in done.out
    assert caplog.messages == [
        "ZeroDivisionError: division by zero; its 5 traces are scored one by one",
        "trace synthetic-0002: ZeroDivisionError: division by zero",
    ]


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("tasks", {"processbench", "synthetic"}),
        ("labelers", {"constant", "cpmi", "length", "random"}),
        ("backends", {"hf"}),
        ("models", {"smollm2-135m (default)"}),
    ],
)
def test_ls(cli: Cli, kind: str, names: set[str]) -> None:
    rows = json.loads(cli("ls", kind, "--json").out)
    assert names <= {row["name"] for row in rows}
    assert all(row["summary"] for row in rows)
    done = cli("ls", kind)
    assert (done.code, done.err) == (0, "")
    for name in names:
        assert name in done.out


@pytest.mark.parametrize("summary", ["scores in [bold]", "closed [/x] only", "at :warning: level"])
def test_ls_prints_a_summary_as_it_is_written(
    cli: Cli, register: Register, monkeypatch: pytest.MonkeyPatch, summary: str
) -> None:
    monkeypatch.setattr(Nervous, "summary", summary)
    register("labelers", "nervous", Nervous)
    assert summary in cli("ls", "labelers").out


CONFIG = {
    "labeler": "cpmi", "task": "processbench", "labeler_args": {"variant": "prefix", "sampled": 8}, "task_args": {},
    "subset": ["gsm8k", "math"], "model": "org/base-7b", "model_args": {}, "backend": "hf", "dtype": "auto",
    "device": "auto", "batch_size": "auto", "scorer": "trie", "threshold": "native", "limit": None, "seed": 0,
    "data_dir": None, "output_path": None,
}  # fmt: skip


def metrics(f1: float | None, error: float | None, correct: float | None, auc: float | None, n: int) -> dict[str, Any]:
    values = {"f1": f1, "acc_error": error, "acc_correct": correct, "step_auc": auc}
    return {key: {"value": value, "n": n} for key, value in values.items()}


def counts(traces: int, scored: int, no_reference: int = 0) -> dict[str, int]:
    failed = traces - scored - no_reference
    return {"traces": traces, "scored": scored, "no_reference": no_reference, "failed": failed}


def summary_of(**changes: Any) -> dict[str, Any]:
    return {
        "schema_version": 1,
        "results": {
            "processbench/gsm8k": metrics(0.523, 0.4, 0.755, 0.6123, 400),
            "processbench/math": metrics(0.25, 0.2, 1 / 3, 0.5, 1000),
            "processbench": metrics(0.3865, 0.3, 0.544, 0.55615, 1400),
        },
        "cost": {
            "wall_seconds": {"load_data": 1.2, "load_model": 8.8, "score": 3661.0, "total": 3671.0},
            "tokens": {"requested": 98_765_432, "computed": 9_876_543, "reused": 88_888_889, "generated": 12_345},
            "waited_seconds": 36.6,
            "peak_memory_bytes": 15_600_000_000,
            "sessions": 2,
        },
        "coverage": {"processbench/gsm8k": counts(400, 398), "processbench/math": counts(1000, 990, 9)},
        "errors": {"too_long": 2, "no_reference": 9, "no_negatives": 1},
        "labeler": {"name": "cpmi", "kind": "labeler", "uses_reference": True},
        "threshold": {"protocol": "native", "value": 0.0},
        "synthetic": False,
        "config": CONFIG,
        "model": {
            "backend": "hf", "model": "org/base-7b", "sha256": None, "revision": "0123456789abcdef",
            "dtype": "bfloat16", "device": "cuda:0 (a large accelerator)", "scorer": "trie",
        },
        "data": [
            {"name": "Qwen/ProcessBench/gsm8k", "revision": "fedcba9876543210", "sha256": None, "rows": 400},
            {"name": "Qwen/ProcessBench/math", "revision": None, "sha256": "00112233445566778899", "rows": 1000},
        ],
        "versions": {"cpmi-eval": "0.1.0"},
        **changes,
    }  # fmt: skip


def failed_row(name: str, kind: str, message: str) -> dict[str, Any]:
    return {
        "id": name,
        "task": "processbench/math",
        "scores": None,
        "prediction": None,
        "cost": Share.nothing().as_dict(),
        "gold": {"first_error": 0, "final_answer_correct": False},
        "error": {"kind": kind, "message": message},
        "details": {},
    }


def write_run(
    path: str, summary: dict[str, Any] | None, rows: list[dict[str, Any]], traces: list[dict[str, Any]]
) -> None:
    folder = Path(path)
    folder.mkdir(parents=True)
    known = {one["id"] for one in traces}
    texts = [{**TEXT, "id": row["id"], "task": row["task"]} for row in rows if row["id"] not in known]
    (folder / "samples.jsonl").write_bytes(to_lines(rows))
    (folder / "traces.jsonl").write_bytes(to_lines([*traces, *texts]))
    run = made(folder, **{"config": CONFIG, **(summary or {})})
    write_json(folder / "manifest.json", run.manifest.as_dict())
    if summary is not None:
        write_json(folder / "results.json", run.summary)


FAILED = [
    failed_row("math-17", "too_long", "4,711 tokens; the model takes 4,096"),
    failed_row("math-3", "no_reference", "no reference answer is known for this problem"),
    failed_row("math-5", "no_negatives", "no rule edits the answer '[a] x :smile:'; try sampled=8"),
]
SCORED = {
    "id": "gsm8k-1",
    "task": "processbench/gsm8k",
    "scores": [0.25, -1.5, 0.0],
    "prediction": 1,
    "gold": {"first_error": 2, "final_answer_correct": False},
    "error": None,
    "cost": Share(1.0, 1.0, Tokens(3, 2, 0), 0).as_dict(),
    "details": {"negatives": ["12", "13 [bold]"], "gold_terms": [0.0, 0.0, 0.0]},
}  # fmt: skip
TEXT = {
    "id": "gsm8k-1",
    "task": "processbench/gsm8k",
    "problem": "Ada has 3 boxes of 4 eggs.\nHow many eggs are there? [bold]No markup[/bold] :egg:",
    "steps": ["There are 3 boxes.", "Each has $4$ eggs, [red]so[/red]\nwe multiply.", "3 × 4 = 11. \\boxed{11}"],
    "answer": "12",
    "cluster": "c",
}


def one_subset(**changes: Any) -> dict[str, Any]:
    """Return the summary of a baseline on synthetic data, without a model."""
    return summary_of(
        **{
            "results": {name: metrics(None, None, None, 0.483, 20) for name in ("synthetic/arithmetic", "synthetic")},
            "cost": {
                "wall_seconds": {"load_data": 0.02, "score": 0.03, "total": 0.05},
                "tokens": {"requested": 0, "computed": 0, "reused": 0, "generated": 0},
                "peak_memory_bytes": 0,
                "sessions": 1,
            },
            "coverage": {"synthetic/arithmetic": counts(20, 20)},
            "errors": {},
            "labeler": {"name": "length", "kind": "baseline", "uses_reference": False},
            "threshold": {"protocol": "native", "value": None},
            "synthetic": True,
            "config": {
                **CONFIG,
                "labeler": "length",
                "labeler_args": {},
                "task": "synthetic",
                "limit": 20,
                "subset": [],
            },
            "model": None,
            "data": [{"name": "synthetic", "revision": None, "sha256": "00112233445566778899", "rows": 200}],
            **changes,
        }
    )


def test_report_of_a_run_with_failures(cli: Cli) -> None:
    write_run("runs/one", summary_of(), FAILED, [])
    done = cli("show", "runs/one")
    assert (done.code, done.err) == (0, "")
    snapshot.check("show_run", done.out)


def test_report_of_a_baseline(cli: Cli) -> None:
    write_run("runs/two", one_subset(), [], [])
    snapshot.check("show_baseline", cli("show", "runs/two").out)


def test_trace(cli: Cli) -> None:
    write_run("runs/one", summary_of(), [SCORED, *FAILED], [TEXT])
    done = cli("show", "runs/one", "--trace", "gsm8k-1")
    assert (done.code, done.err) == (0, "")
    snapshot.check("show_trace", done.out)


def test_trace_without_a_score_and_without_a_decision(cli: Cli) -> None:
    plain = {**TEXT, "steps": ["One.", "Two.", "Three."]}
    failed = {**FAILED[0], "id": "gsm8k-1", "task": TEXT["task"]}
    write_run("failed", None, [failed], [plain])
    write_run("undecided", None, [{**SCORED, "prediction": None, "details": {}}], [plain])
    out = cli("show", "failed", "--trace", "gsm8k-1").out
    assert "no score: too_long: 4,711 tokens; the model takes 4,096" in out
    assert "+" not in out
    assert "prediction: none" in cli("show", "undecided", "--trace", "gsm8k-1").out


def test_trace_as_json(cli: Cli) -> None:
    write_run("runs/one", summary_of(), [SCORED], [TEXT])
    assert json.loads(cli("show", "runs/one", "--trace", "gsm8k-1", "--json").out) == {**SCORED, "trace": TEXT}


def test_a_trace_may_hold_any_character(cli: Cli) -> None:
    steps = ["line\u2028separator", "next\x85line, form\x0cfeed", "paragraph\u2029separator"]
    write_run("runs/one", summary_of(), [SCORED], [{**TEXT, "steps": steps}])
    assert json.loads(cli("show", "runs/one", "--trace", "gsm8k-1", "--json").out)["trace"]["steps"] == steps
    assert "separator" in cli("show", "runs/one", "--trace", "gsm8k-1").out


def test_unknown_trace(cli: Cli) -> None:
    write_run("runs/one", summary_of(), [SCORED], [TEXT])
    done = cli("show", "runs/one", "--trace", "gsm8k-11")
    assert done.code == 2
    assert "unknown trace 'gsm8k-11'. Did you mean 'gsm8k-1'" in done.err


def test_steps_are_tinted_from_red_to_green_where_colour_is_wanted(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    write_run("runs/one", summary_of(), [SCORED], [{**TEXT, "steps": ["good", "bad", "middling"]}])
    args = ("show", "runs/one", "--trace", "gsm8k-1")
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLORTERM", "truecolor")
    found = {
        text: tuple(map(int, colour))
        for *colour, text in re.findall(r"\x1b\[38;2;(\d+);(\d+);(\d+)m(good|bad|middling)", cli(*args).out)
    }
    assert set(found) == {"good", "bad", "middling"}
    red, green = ({name: colour[index] for name, colour in found.items()} for index in (0, 1))
    assert red["good"] < green["good"]
    assert red["bad"] > green["bad"]
    assert green["bad"] < green["middling"] <= green["good"]
    assert red["good"] < red["middling"] <= red["bad"]

    monkeypatch.setenv("NO_COLOR", "1")
    assert "38;2" not in cli(*args).out
    monkeypatch.delenv("FORCE_COLOR")
    assert "\x1b" not in cli(*args).out


def test_a_results_file_of_something_else(cli: Cli) -> None:
    write_run("odd", {}, [], [])
    Path("odd/results.json").write_text('{"results": {}}')
    done = cli("leaderboard", "show", "odd")
    assert done.code == 2
    assert "results.json is not valid: Object missing required field `labeler`" in done.err
    shown = cli("show", "odd")
    assert shown.code == 2
    assert "results.json" in shown.err


@pytest.mark.parametrize("command", ["", "run", "label", "generate", "train", "ls", "show", "leaderboard", "validate"])
def test_help(cli: Cli, command: str) -> None:
    done = cli(*command.split(), "--help")
    assert (done.code, done.err) == (0, "")
    assert cli(*command.split(), "-h").out == done.out
    assert "\\" not in done.out
    snapshot.check(f"help_{command or 'cpmi-eval'}", done.out)
