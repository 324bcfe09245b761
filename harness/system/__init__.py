"""The machine below: console, processes, interrupts, files."""
