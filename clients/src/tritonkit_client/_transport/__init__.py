"""Connections: where servers are, who is calling, and how bytes go to one server over gRPC, HTTP and sockets."""
