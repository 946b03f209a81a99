"""Kills and long runs: are resumed runs bit-identical, and does memory stay flat?"""
