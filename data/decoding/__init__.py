"""Decode image files to pixels. `prepare` uses this code, and every archive contains it unchanged."""
