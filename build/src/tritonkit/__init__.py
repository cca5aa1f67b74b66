"""tritonkit: one road from a PyTorch model to a tuned, checked NVIDIA Triton deployment."""

__version__ = "0.1.0"
