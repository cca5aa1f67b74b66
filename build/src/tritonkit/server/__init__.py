"""A real Triton on this machine: installs it, starts it on a repository, stops it."""

from tritonkit.server.process import TritonServer
from tritonkit.server.runtime import Runtime, find, install

__all__ = ["Runtime", "TritonServer", "find", "install"]
