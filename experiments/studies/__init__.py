"""Many runs: lists of them, frozen in files, launched, and what they will be able to tell."""
