"""How many bytes an element of each of Triton's data types takes; strings have no width of their own."""

from __future__ import annotations

from tritonclient.grpc import model_config_pb2 as pb

WIDTHS = {
    pb.TYPE_BOOL: 1, pb.TYPE_UINT8: 1, pb.TYPE_INT8: 1, pb.TYPE_UINT16: 2, pb.TYPE_INT16: 2, pb.TYPE_FP16: 2,
    pb.TYPE_BF16: 2, pb.TYPE_UINT32: 4, pb.TYPE_INT32: 4, pb.TYPE_FP32: 4, pb.TYPE_UINT64: 8, pb.TYPE_INT64: 8,
    pb.TYPE_FP64: 8,
}  # fmt: skip
