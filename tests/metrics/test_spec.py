"""What metrics say of themselves."""

import pytest

from cpmi_eval import registry
from cpmi_eval.metrics.spec import MetricSpec, describes, spec_of


@pytest.mark.parametrize(
    ("name", "heading", "label", "unit"),
    [
        ("f1", "F1", "F1", "percent"),
        ("acc_error", "acc err.", "accuracy, erroneous", "percent"),
        ("step_auc", "AUC", "step AUC", "fraction"),
        ("outcome_auc", "AUC", "outcome AUC", "fraction"),
        ("outcome_auc_min", "outcome_auc_min", "outcome auc min", "fraction"),
        ("bon@8", "bon@8", "bon@8", "percent"),
        ("relative_time", "relative_time", "relative time", "multiple"),
        ("unheard_of", "unheard_of", "unheard of", "percent"),
    ],
)
def test_metrics_name_themselves(name: str, heading: str, label: str, unit: str) -> None:
    spec = spec_of(name)
    assert (spec.name, spec.heading, spec.label, spec.unit) == (name, heading, label, unit)


def test_headlines_and_directions() -> None:
    assert [
        name for name in ("f1", "acc_error", "step_auc", "bon@4", "bon_min@4", "pass@1") if spec_of(name).headline
    ] == [
        "f1",
        "bon@4",
    ]
    assert not spec_of("brier").higher_is_better
    assert spec_of("acc_correct").part_of == "f1"


def test_a_plug_in_brings_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    @describes(MetricSpec("loss", "loss ↓", unit="fraction", higher_is_better=False))
    def compute(outcomes: object) -> dict[str, object]:
        return {}

    assert spec_of("loss", compute).heading == "loss ↓"
    assert spec_of("loss").heading == "loss"
    monkeypatch.setitem(registry.BUILTIN["metrics"], "loss", f"{__name__}:missing")
    registry.entries.cache_clear()
    try:
        assert spec_of("f1").heading == "F1"  # one that cannot be imported hides no other
    finally:
        monkeypatch.undo()
        registry.entries.cache_clear()
