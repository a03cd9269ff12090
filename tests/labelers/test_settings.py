"""What labelers say of settings that are wrong, unknown, or would do nothing; and without a model."""

import pytest
from scripted import trace

from cpmi_eval import registry, settings
from cpmi_eval.errors import UsageError
from cpmi_eval.labelers.monte_carlo import MonteCarlo

WRONG = {
    "cpmi": [
        ({"variant": "prefixes"}, "Did you mean 'prefix'"),
        ({"normalize": "token"}, "Known: answer, none, target"),
        ({"n_negatives": 0}, "n_negatives must be a whole number at least 1"),
        ({"n_negatives": 2.5}, "n_negatives must be a whole number"),
        ({"weight": "x"}, "weight must be a number"),
        ({"weight": float("nan")}, "weight must be a number"),
        ({"top_p": 0.0}, "top_p must be a number"),
        ({"chat": "yes"}, "chat must be true or false"),
        ({"target": "The answer is:"}, "target must hold {answer}"),
        ({"templates": "nowhere.yaml"}, "nowhere.yaml does not exist"),
        ({"negatives_file": "nowhere.jsonl"}, "nowhere.jsonl"),
    ],
    "mc": [
        ({"temprature": 1.0}, "unknown mc labeler setting 'temprature'. Did you mean 'temperature'"),
        ({"shedule": "full"}, "unknown mc labeler setting 'shedule'. Did you mean 'schedule'"),
        ({"schedule": "adaptve"}, "Did you mean 'adaptive'"),
        ({"label": "sof"}, "Did you mean 'soft'"),
        ({"n": 0}, "n must be a whole number at least 1"),
        ({"n": True}, "n must be a whole number"),
        ({"temperature": -1}, "temperature must be a number"),
        ({"top_p": 0}, "top_p must be a number"),
        ({"top_k": -1}, "top_k must be a whole number"),
        ({"repetition_penalty": 0}, "repetition_penalty must be a number"),
        ({"max_new_tokens": 0}, "max_new_tokens must be a whole number"),
        ({"chat": "yes"}, "unknown chat setting 'yes'"),
        ({"prompt": "nowhere.txt"}, "prompt file nowhere.txt does not exist"),
        ({"rollouts": "nowhere.jsonl"}, "nowhere.jsonl does not exist"),
        ({"rollouts": "x.jsonl", "n": 4, "temperature": 1.0, "stop": "x"}, "so temperature and stop would do nothing"),
        ({"rollouts": "x.jsonl", "max_new_tokens": 64}, "so max_new_tokens would do nothing"),
        ({"n": 5, "schedule": "adaptive"}, "schedule=adaptive is for label=hard: a share of successes needs all 5"),
        ({"n": 5, "schedule": "binary"}, "schedule=binary is for label=hard"),
    ],
    "pav": [
        ({"prover": "other", "rollouts": "x.jsonl"}, "runs no model, so prover would do nothing"),
        ({"alpha": "x"}, "alpha must be a number"),
        ({"alpha": float("inf")}, "alpha must be a number"),
        ({"prover_n": 0}, "prover_n must be a whole number at least 1"),
        ({"provr": "x"}, "unknown pav labeler setting 'provr'. Did you mean 'prover'"),
        ({"top_kk": 3}, "unknown pav labeler setting 'top_kk'. Did you mean 'top_k'"),
        ({"label": "hard"}, "unknown pav labeler setting 'label'"),
    ],
    "cpmi-merge": [
        ({"cpmi": "varaint=loo"}, "unknown cpmi labeler setting 'varaint'. Did you mean 'variant'"),
        ({"mc": "temprature=1"}, "unknown mc labeler setting 'temprature'. Did you mean 'temperature'"),
        ({"mc": {"nn": 1}}, "unknown mc labeler setting 'nn'"),
        ({"cpmi": "seed=3"}, "unknown cpmi labeler setting 'seed'"),
        ({"mc": "seed=3"}, "unknown mc labeler setting 'seed'"),
        ({"mc": "schedule=binary,label=hard"}, "schedule=binary searches a whole trace"),
        ({"mc": "schedule=adaptive"}, "is for label=hard"),
        ({"mc": "n=0"}, "n must be a whole number"),
        ({"mc": "n"}, "expected key=value"),
        ({"mc": 8}, 'mc must be settings such as mc="n=8", not 8'),
        ({"cpmi": True}, 'cpmi must be settings such as cpmi="n=8", not True'),
        ({"scale": "zsg"}, "Did you mean 'zsig'"),
        ({"mcc": "n=8"}, "unknown cpmi-merge labeler setting 'mcc'. Did you mean 'mc'"),
        ({"n": 8}, "unknown cpmi-merge labeler setting 'n'"),
    ],
    "judge": [
        ({"mode": "logits"}, "Did you mean 'logit'"),
        ({"votes": 0}, "votes must be a whole number at least 1"),
        ({"votes": 2.5}, "votes must be a whole number"),
        ({"votes": True}, "votes must be a whole number"),
        ({"temperature": 0.7}, "temperature would do nothing with votes=1"),
        ({"votes": 1, "top_p": 0.8, "top_k": 20}, "top_p and top_k would do nothing with votes=1"),
        ({"votes": 2, "temperature": 0}, "temperature must be a number"),
        ({"votes": 2, "top_p": 1.5}, "top_p must be a number"),
        ({"votes": 2, "top_k": -1}, "top_k must be a whole number"),
        ({"max_new_tokens": 0}, "max_new_tokens must be a whole number at least 1"),
        ({"verdicts": "Yes|No"}, "verdicts would do nothing in mode=generate"),
        ({"mode": "steps", "top_k": 20}, "top_k would do nothing with votes=1"),
        ({"mode": "verify", "temperature": 0.6}, "temperature would do nothing with votes=1"),
        ({"mode": "steps", "verdicts": "right|Right"}, "verdicts must be two different words"),
        ({"mode": "logit", "votes": 1}, "votes would do nothing in mode=logit"),
        ({"mode": "logit", "temperature": 1.0, "max_new_tokens": 9}, "temperature and max_new_tokens would do nothing"),
        ({"mode": "logit", "verdicts": "Yes"}, "verdicts must be two different words such as Yes|No, not 'Yes'"),
        ({"mode": "logit", "verdicts": "Yes| "}, "verdicts must be two different words"),
        ({"mode": "logit", "verdicts": "Yes|No|Maybe"}, "verdicts must be two different words"),
        ({"mode": "logit", "verdicts": "Yes | Yes"}, "verdicts must be two different words"),
        ({"mode": "logit", "verdicts": True}, "verdicts must be two different words"),
        ({"chat": "yes"}, "unknown chat setting 'yes'"),
        ({"prompt": "nowhere.txt"}, "nowhere.txt does not exist"),
        ({"prompt": 7}, "prompt file 7 does not exist"),
    ],
}


@pytest.mark.parametrize(
    ("name", "how", "message"), [(name, how, message) for name, rows in WRONG.items() for how, message in rows]
)
def test_wrong_settings_say_what_is_wrong(name, how, message):
    with pytest.raises(UsageError) as caught:
        settings.construct(f"{name} labeler", registry.load("labelers", name), how, seed=0)
    assert message in str(caught.value)


def test_names_are_checked_by_the_labeler_too():
    with pytest.raises(UsageError, match="temperature"):
        MonteCarlo(temprature=1.0)


@pytest.mark.parametrize("name", ["cpmi", "mc", "pav", "cpmi-merge", "judge"])
def test_without_a_model_it_says_so(name):
    with pytest.raises(UsageError, match=r"needs? a model"):
        list(registry.load("labelers", name)().score([trace("a")], None))
