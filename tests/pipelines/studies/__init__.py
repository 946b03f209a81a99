"""Tests of pipelines/studies."""
