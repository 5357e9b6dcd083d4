"""``python -m brainy_node``."""

from brainy.config.environment import export

# gRPC's fork handlers only warn here: what is forked is a builder, which executes at once.
export(GRPC_ENABLE_FORK_SUPPORT="false")

from brainy_node.main import app  # noqa: E402 - gRPC reads the variable when it is imported

if __name__ == "__main__":
    app()
