"""Which way from a Brainy bucket, or a generation, to the next: reasons, steps and figures. Decides, and does nothing."""
