"""The one typed record of a model and its engines: who made them, from what, how they were judged, where they run.

:class:`ModelPassport` is ``passport.json``; :class:`EnginePassport` is the file beside a TensorRT plan, whose place
:mod:`tritonkit.engines.passport` knows. Passports of every release of tritonkit read: a key that an older one did not
write has its default, and one that only a newer one knows stays in the file, whoever writes it again.
"""

from tritonkit.passport.engine import EngineFacts, EnginePassport, ShapeBounds, ShapeRange, find_engine
from tritonkit.passport.model import FIRST, ModelPassport, find, read
from tritonkit.passport.sections import (
    Adapter,
    DeviceMemory,
    Forest,
    ForestParity,
    Gate,
    GateRow,
    KvCache,
    LanguageModel,
    Measurement,
    Queue,
    Section,
    Tf32,
    Tuning,
)

__all__ = [
    "FIRST",
    "Adapter",
    "DeviceMemory",
    "EngineFacts",
    "EnginePassport",
    "Forest",
    "ForestParity",
    "Gate",
    "GateRow",
    "KvCache",
    "LanguageModel",
    "Measurement",
    "ModelPassport",
    "Queue",
    "Section",
    "ShapeBounds",
    "ShapeRange",
    "Tf32",
    "Tuning",
    "find",
    "find_engine",
    "read",
]
