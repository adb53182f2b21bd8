"""Models that embed: from requests to vectors, with a loop and steps of their own."""
