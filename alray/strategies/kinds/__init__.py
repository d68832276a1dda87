"""What several strategies share: one file a kind. No strategy stands here; each has its own file above."""
