"""The loss of completion-only training, computed only where there is a label. Explained in lessons 05 and 07."""

from __future__ import annotations

import types

import torch
from trl import SFTTrainer


def answer_loss(trainer, model, inputs, return_outputs=False, num_items_in_batch=None):
    """The loss of TRL's completion-only training, with vocabulary scores computed only where there is a label."""
    core = model.get_base_model() if hasattr(model, "get_base_model") else model
    labels = inputs["labels"][:, 1:]  # position t predicts token t + 1
    wanted = labels != -100
    with trainer.accelerator.autocast():  # bfloat16 where the settings say so
        body = core.base_model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], use_cache=False)
        scores = core.get_output_embeddings()(body.last_hidden_state[:, :-1][wanted])  # (answer tokens, vocabulary)
    total = torch.nn.functional.cross_entropy(scores.float(), labels[wanted], reduction="sum")
    loss = total / (wanted.sum().clamp(min=1) if num_items_in_batch is None else num_items_in_batch)
    return (loss, {}) if return_outputs else loss


def answer_loss_only(trainer: SFTTrainer) -> SFTTrainer:
    """Let a trainer compute its loss with `answer_loss`; return the trainer.

    On a CPU, TRL 1.16 scores the whole vocabulary at every position, masked or not, twice per step. Refused with
    ValueError for models that transform their scores after the output layer (such as Gemma's soft-capping).
    """
    args, adapter = trainer.args, getattr(trainer.model, "active_peft_config", None)
    for other, what in (
        (args.loss_type != "nll", f"loss_type={args.loss_type!r}"), (args.label_smoothing_factor, "label smoothing"),
        (args.packing or args.padding_free, "packing"), (getattr(trainer, "aux_loss_enabled", False), "a router loss"),
        (getattr(adapter, "is_prompt_learning", False), "prompt learning"),
    ):
        if other:
            raise ValueError(f"answer_loss_only: expected plain completion-only training, got {what}. Leave this call out.")
    config = trainer.model.config.get_text_config()
    for name in ("final_logit_softcapping", "logit_scale", "logits_scaling", "lm_head_multiplier", "output_multiplier"):
        if getattr(config, name, None) not in (None, 1, 1.0):
            raise ValueError(f"answer_loss_only: expected a plain output layer, got a model with {name}. Leave this call out; "
                             "the trainer's own loss is right, only slower.")
    trainer.compute_loss = types.MethodType(answer_loss, trainer)
    return trainer
