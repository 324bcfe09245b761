"""What a suite says: its schema, the plug-ins it names, their options, the cells it plans."""
