"""All that the author of a plug-in reads: what to write, and what is handed over."""
