"""Maths on bare tensors: no classes, no files, no randomness of its own."""
