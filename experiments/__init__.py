"""Runs the designs of `roadmap`: settings, data, training, records and the commands around them."""
