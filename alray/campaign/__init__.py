"""The story: rounds of selection, labelling and training, and the ledger that survives them."""
