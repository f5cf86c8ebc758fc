"""The network shown to people: as text, tables and block diagrams."""
