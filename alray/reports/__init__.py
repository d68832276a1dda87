"""Many campaigns beside each other: what each saved, in labels and in dollars, and with what certainty."""
