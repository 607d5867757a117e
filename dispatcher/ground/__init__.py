"""What everything stands on: it decides and counts, values in and values out. No clock, no network, no database."""
