"""Who may call, what a caller sees and may hold, and who did what."""
