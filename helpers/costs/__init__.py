"""What a training run will cost, from the model's configuration alone: parameters, memory, time, money. Explained in lesson 07.

`predict(config, method="lora", batch=8, length=256)` loads no weights, so it works for models that do not fit on this machine.
`shape` reads the configuration, `setup` holds the knobs, `memory` the bytes, `prediction` brings them together.
"""

from .advice import Knob, advice
from .errors import CostsError
from .machine import Machine, calibrate, optimizer_of
from .memory import Memory, nf4_bytes
from .money import devices, price
from .prediction import Prediction, predict
from .setup import Setup
from .shape import Shape, shape_of

__all__ = [
    "CostsError", "Knob", "Machine", "Memory", "Prediction", "Setup", "Shape", "advice", "calibrate", "devices", "nf4_bytes", "optimizer_of", "predict",
    "price", "shape_of",
]
