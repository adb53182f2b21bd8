"""The JSON shapes of the OpenAI API, one typed struct each, under the field's own names.

Shapes only: nothing here knows where a request came from or who answers it.
"""
