"""New vocabulary tables for a checkpoint: made, calibrated, explained, opened again."""
