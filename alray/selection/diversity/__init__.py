"""From a shortlist to picks that are kept apart: one file a way, and what they stand on."""
