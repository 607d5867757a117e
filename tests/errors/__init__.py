"""docs/errors.md: every message that a person can meet, found in the code itself."""
