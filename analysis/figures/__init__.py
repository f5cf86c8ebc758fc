"""The figures: each is a function of a table (and a size: page, column or slide) that returns a matplotlib Figure."""
