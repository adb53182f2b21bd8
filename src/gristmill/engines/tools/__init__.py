"""Tools as every engine needs them: what a request offers, and the calls that its messages hold. Pure."""
