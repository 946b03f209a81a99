"""Test the servers under load and under attack, and compare them."""
