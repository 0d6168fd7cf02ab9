"""Plumbing for training: quiet, seeded settings, a live picture of the loss, memory, checks, checkpoints. Explained in lessons 05 and 07.

What a lesson teaches (`LoraConfig`, `SFTConfig`, `SFTTrainer`) stands in the lesson's own cells. `settings` holds keyword arguments
and readings, `loss` the loss only where labels are, `mask` the label mask in words, `live` the picture, `memory` what a step holds, `checks` and `checkpoints`
what keeps a training from being lost.
"""

from .checkpoints import guard, last_checkpoint
from .checks import TrainingError, check_rows
from .live import LiveLoss, add_live_loss, loss_history
from .loss import answer_loss, answer_loss_only
from .mask import show_mask
from .memory import free_memory, kept_for_backward, peak_memory
from .settings import peak_memory_gb, quiet, quiet_settings, trainable_parameters

__all__ = [
    "LiveLoss", "TrainingError", "add_live_loss", "answer_loss", "answer_loss_only", "check_rows", "free_memory", "guard", "kept_for_backward", "last_checkpoint",
    "loss_history", "peak_memory", "peak_memory_gb", "quiet", "quiet_settings", "show_mask", "trainable_parameters",
]
