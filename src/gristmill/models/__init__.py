"""Models of the embedded engine: what can be fetched, how it is fetched and checked, where it is kept."""
