"""What a model's own answers teach it: self-calibration of a chat model after a transfer."""
