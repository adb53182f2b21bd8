"""Where bytes are: a folder, or an object store (S3, Google's, Azure's); both through obstore."""
