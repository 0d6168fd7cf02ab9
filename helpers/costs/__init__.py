"""What a training run will cost, from the model's configuration alone: parameters, memory, time, money. Explained in lesson 07.

`predict(config, method="lora", batch=8, length=256)` loads no weights, so it works for models that do not fit on this machine.
`shape` reads the configuration, `setup` holds the knobs, `memory` the bytes, `prediction` brings them together.
"""

from .errors import CostsError
from .memory import Memory, nf4_bytes
from .prediction import Prediction, predict
from .setup import Setup
from .shape import Shape, shape_of

__all__ = ["CostsError", "Memory", "Prediction", "Setup", "Shape", "nf4_bytes", "predict", "shape_of"]
