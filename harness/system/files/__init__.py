"""Files from outside and to the outside: bounded, locked, written whole."""
