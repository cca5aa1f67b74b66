"""The command ``tritonkit-client``."""
