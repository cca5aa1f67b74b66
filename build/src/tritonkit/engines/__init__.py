"""ONNX graphs to TensorRT engines, one for each GPU, and what those engines need of a node."""
