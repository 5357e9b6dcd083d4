"""Leases with fencing tokens over an object store."""
