"""Findings of the papers as experiments: studies/*.yaml → cells → decisions → a page."""
