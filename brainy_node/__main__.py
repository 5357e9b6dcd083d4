"""``python -m brainy_node``."""

from brainy_node.main import app

if __name__ == "__main__":
    app()
