"""Analyses that are run like tasks. They are no measure of quality: in no benchmark, and in no list by type."""
