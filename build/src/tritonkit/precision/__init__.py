"""Variants of a graph in fp16, int8 and fp8, and the gate that decides which one is served."""
