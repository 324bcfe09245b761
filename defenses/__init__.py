"""The split pipeline: backbones, reductions, codecs, payload, channels."""
