"""Kills and long runs: does it end in the same bits, does memory stay flat?"""
