"""A step that there was no room to compute."""


class OutOfRoom(Exception):
    """A ``ModelRunner`` has no memory left for this step, or no KV cells, and can go on with a smaller one. The message
    says of what, as a clause ("the GPU's memory is full"). What it has written is undefined, as of an aborted step."""
