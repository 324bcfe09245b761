"""Models that are loaded: from timm, transformers, or a file, with the input that they were trained on."""
