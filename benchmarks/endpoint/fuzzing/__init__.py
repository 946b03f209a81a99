"""Requests that no client of good will sends: what is sent, over which wire, and what may be answered."""
