"""Metrics: one file a family, each a Metric plus the function that gives a sample's value or statistics.

They see numbers and texts, never models or tasks, and import neither torch nor transformers.
"""
