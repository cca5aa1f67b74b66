"""What travels between a client and a server: the wire formats of gRPC and HTTP, tensors, metadata, errors. No I/O."""
