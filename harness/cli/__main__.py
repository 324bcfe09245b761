"""``python -m leakgauge.harness.cli`` is the command ``leakgauge``."""

from leakgauge.harness.cli import main

if __name__ == "__main__":
    main()
