"""Thin gRPC servicers: a request in, one call to the router or the runtime, a response out."""
