"""``python -m brainy_node``."""

from brainy.config.environment import export

# gRPC's fork handlers only warn here: what is forked is a builder, which executes at once.
# One BLAS thread: the tail is small, and a pool of spinning threads beside the event loop costs more than it gives.
export(GRPC_ENABLE_FORK_SUPPORT="false", OPENBLAS_NUM_THREADS="1")

from brainy_node.main import app  # noqa: E402 - gRPC reads the variable when it is imported

if __name__ == "__main__":
    app()
