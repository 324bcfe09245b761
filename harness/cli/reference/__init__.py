"""Commands that tell of plug-ins and suites, and run nothing."""
