"""The cheap stand-in for the big model: is it still aligned with it, and when is it worth aligning again?"""
