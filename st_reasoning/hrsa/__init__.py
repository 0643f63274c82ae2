"""Hierarchical representation similarity analysis: do two models represent the same texts alike?"""
