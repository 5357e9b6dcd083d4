"""Settings: the only place that reads files and the environment for configuration."""
