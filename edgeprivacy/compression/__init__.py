"""What to compress and how far: schedules and masks, written once for all backends."""
