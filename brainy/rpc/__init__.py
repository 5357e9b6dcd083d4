"""The conventions every gRPC server and client of this product shares."""
