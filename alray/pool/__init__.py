"""The pool: all that can be labelled, cut into shards by its data; pictures decoded or quarantined with a reason."""
