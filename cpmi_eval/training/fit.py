"""Fit a two-class token classifier at the step positions with transformers' Trainer.

The loss of a step is the cross-entropy of the two classes' softmax against (1 - p, p), p being how good its label says
it is: 0 or 1, or anything between. It is averaged over the steps of an update.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import log_softmax
from transformers import Trainer, TrainerCallback, TrainingArguments

from cpmi_eval.errors import ModelError
from cpmi_eval.training.config import TrainConfig
from cpmi_eval.training.examples import Target
from cpmi_eval.types import JSON

IGNORED = -100.0  # what the Trainer counts as no label
HARD = 0.5


def collate(batch: Sequence[Target]) -> dict[str, Tensor]:
    """Return padded ids and attention mask [batch, length] and labels [batch, length], IGNORED away from the steps."""
    width = max(len(one.ids) for one in batch)
    ids = torch.zeros((len(batch), width), dtype=torch.long)
    mask = torch.zeros((len(batch), width), dtype=torch.long)
    labels = torch.full((len(batch), width), IGNORED)
    for row, one in enumerate(batch):
        ids[row, : len(one.ids)] = torch.tensor(one.ids)
        mask[row, : len(one.ids)] = 1
        labels[row, list(one.reads)] = torch.tensor(one.goods)
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def step_losses(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the loss of every step, shape [steps], for logits [batch, length, 2] and labels [batch, length]."""
    at = labels != IGNORED
    good = labels[at]
    logs = log_softmax(logits[at].float(), dim=-1)
    return -(good * logs[:, 1] + (1.0 - good) * logs[:, 0])


class StepTrainer(Trainer):  # type: ignore[misc]  # transformers is untyped here
    """The Trainer with the loss of steps."""

    def compute_loss(
        self, model: Any, inputs: dict[str, Tensor], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Return the mean loss over the steps of the update that this batch is a part of."""
        given = {key: value for key, value in inputs.items() if key != "labels"}
        outputs = model(**given)
        losses = step_losses(outputs.logits, inputs["labels"])
        loss = losses.mean() if num_items_in_batch is None else losses.sum() / num_items_in_batch
        return (loss, outputs) if return_outputs else loss


class Reporter(TrainerCallback):  # type: ignore[misc]
    """Tells how far the training is."""

    def __init__(self, report: Callable[[int, int], None]) -> None:
        """Say whom to tell."""
        self.report = report

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Tell after every update."""
        self.report(state.global_step, state.max_steps)


@torch.inference_mode()
def evaluate(model: Any, targets: Sequence[Target], batch_size: int, half: bool = False) -> JSON:
    """Return loss, accuracy at 0.5 and AUC against hard labels over all steps of ``targets``; None without any.

    ``half``: compute in bfloat16, as the training does.

    Raises:
        ModelError: the model's outputs are not finite.
    """
    if not targets:
        return {"problems": 0, "steps": 0, "loss": None, "accuracy": None, "step_auc": None}
    from sklearn.metrics import roc_auc_score

    training = model.training
    model.eval()
    losses: list[float] = []
    scores: list[float] = []
    goods: list[float] = []
    device = next(model.parameters()).device
    for start in range(0, len(targets), batch_size):
        batch = {key: value.to(device) for key, value in collate(targets[start : start + batch_size]).items()}
        labels = batch.pop("labels")
        with torch.autocast(device.type, torch.bfloat16, enabled=half):
            logits = model(**batch).logits
        at = labels != IGNORED
        losses += step_losses(logits, labels).tolist()
        scores += logits[at].float().softmax(dim=-1)[:, 1].tolist()
        goods += labels[at].tolist()
    model.train(training)
    if not math.isfinite(math.fsum(losses)):
        raise ModelError("the model's outputs are not finite; try a lower --learning_rate or --dtype float32")
    hard = [good >= HARD for good in goods]
    hits = sum((score >= HARD) == good for score, good in zip(scores, hard, strict=True))
    return {
        "problems": len({one.cluster for one in targets}),
        "steps": len(goods),
        "loss": math.fsum(losses) / len(losses),
        "accuracy": hits / len(hard),
        "step_auc": float(roc_auc_score(hard, scores)) if len(set(hard)) == 2 else None,
    }


def arguments(config: TrainConfig, folder: str, on_cpu: bool, half: bool) -> TrainingArguments:
    """Return the Trainer's arguments; it saves checkpoints into ``folder`` and prints nothing."""
    return TrainingArguments(
        output_dir=folder,
        num_train_epochs=config.epochs,
        learning_rate=config.rate,
        per_device_train_batch_size=config.batch_size,
        gradient_accumulation_steps=config.gradient_accumulation,
        warmup_steps=config.warmup,  # a number below 1 is a share of all steps
        weight_decay=config.weight_decay,
        save_strategy="steps",
        save_steps=config.save_steps,
        save_total_limit=1,
        logging_steps=1,
        logging_nan_inf_filter=False,
        seed=config.seed,
        data_seed=config.seed,
        bf16=half,
        use_cpu=on_cpu,
        report_to="none",
        disable_tqdm=True,
        log_level="error",
        remove_unused_columns=False,
        dataloader_pin_memory=not on_cpu,
    )


def fit(
    model: Any,
    targets: Sequence[Target],
    args: TrainingArguments,
    resume: str | None,
    report: Callable[[int, int], None],
) -> JSON:
    """Train ``model`` in place, from the checkpoint ``resume`` if any; return updates, seconds and loss by update."""
    from transformers.trainer_callback import PrinterCallback

    trainer = StepTrainer(
        model=model, args=args, train_dataset=list(targets), data_collator=collate, callbacks=[Reporter(report)]
    )
    trainer.remove_callback(PrinterCallback)  # results are ours to print
    start = time.perf_counter()
    trainer.train(resume_from_checkpoint=resume)
    seconds = time.perf_counter() - start
    history = [{"step": entry["step"], "loss": entry["loss"]} for entry in trainer.state.log_history if "loss" in entry]
    return {"steps": trainer.state.global_step, "seconds": seconds, "losses": history}
