"""Readers of labelled files and corpora. Nothing here imports torch."""
