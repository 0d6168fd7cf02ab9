"""The loss while it falls, and afterwards. Explained in lesson 05."""

from __future__ import annotations

from IPython.display import display
from transformers import PrinterCallback, Trainer, TrainerCallback

from helpers import plots


class LiveLoss(TrainerCallback):
    """Draws the loss while the trainer runs, and takes the picture away at the end.

    So a person sees the training live and the stored notebook keeps nothing that changes from run to run.
    `every`: steps between two pictures.
    """

    def __init__(self, every: int = 5) -> None:
        self.every = every
        self.losses: list[float] = []
        self.handle = None

    def on_train_begin(self, args, state, control, **_):
        self.losses.clear()
        self.handle = display({"text/plain": f"training: step 0 of {state.max_steps}"}, raw=True, display_id=True)

    def on_log(self, args, state, control, logs=None, **_):
        if "loss" not in (logs or {}):
            return
        self.losses.append(float(logs["loss"]))
        if self.handle and (len(self.losses) % self.every == 0 or state.global_step == state.max_steps):
            self.handle.update(plots.as_png(plots.live_loss(self.losses, state.max_steps)), raw=True)

    def on_train_end(self, args, state, control, **_):
        if self.handle:
            self.handle.update({"text/plain": ""}, raw=True)


def add_live_loss(trainer: Trainer, every: int = 5) -> Trainer:
    """Give a trainer the live picture instead of its printed logs; return the trainer."""
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(LiveLoss(every))
    return trainer


def loss_history(trainer: Trainer) -> list[float]:
    """The training loss of every logged step, in order."""
    return [float(entry["loss"]) for entry in trainer.state.log_history if "loss" in entry]
