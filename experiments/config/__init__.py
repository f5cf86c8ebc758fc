"""What can be asked for: settings, their schema for Hydra, composing, checking, naming and hashing them. No torch."""
