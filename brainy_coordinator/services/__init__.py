"""The gRPC servicers of the control plane: thin, they translate and delegate."""
