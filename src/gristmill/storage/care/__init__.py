"""Care for what is stored, while it is used: backups and their restoring, checking, pruning, and the disk it takes."""
