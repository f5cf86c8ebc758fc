"""Effects of sets of changes: noise of a run, subsets and orders, weighted sums of v(set). No torch."""
