"""Which way from a Brainy bucket, or a generation, to the next: reasons, steps, figures. Does nothing."""
