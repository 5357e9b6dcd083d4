"""Data that come from elsewhere: a backup, or another namespace."""
