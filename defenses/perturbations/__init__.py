"""Privacy mechanisms on the tokens before they are encoded, one kind a file."""
