"""vLLM's own OpenAI server behind a backend of Triton's.

    arguments    model.json and multi_lora.json as a command line
    process      the server's process: started, watched, started again
    http_client  what is said to it, over asyncio
    sampling     sampling parameters as the body of a call
    answers      events of an answer as output tensors
    calls        Triton's requests, on their way
    metrics      what its metrics say
    reporting    those beside Triton's

It imports the standard library and numpy 1 only, as it runs inside Triton, whose Python API ``calls`` and ``reporting``
use, too.
"""

from .arguments import Settings, SettingsError, read_settings
from .http_client import ConnectionLost, EngineError, call
from .process import EngineProcess, StartFailed, Unavailable

__all__ = [
    "ConnectionLost", "EngineError", "EngineProcess", "Settings", "SettingsError", "StartFailed", "Unavailable", "call",
    "read_settings",
]  # fmt: skip
