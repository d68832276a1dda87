"""alray: which pictures to pay to label next, and what that buys."""
