"""The wire: tokens to bytes and back, over a channel."""
