"""The command line: one file a command. It parses arguments, calls what the API calls, and shows what comes back."""
