"""The split pipeline of a vision-language model."""
