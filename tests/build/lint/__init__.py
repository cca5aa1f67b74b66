"""Tests of ``tritonkit lint``: every rule against a bad and a good model, and against the real server."""
