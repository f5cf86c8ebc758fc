"""Which change is responsible for what: tables of v(set of changes), whatever the order of adding them."""
