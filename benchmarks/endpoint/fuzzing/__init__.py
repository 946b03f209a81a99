"""Broken requests: how they are made and sent, and which answers are allowed."""
