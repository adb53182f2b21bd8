"""Go's text/template, as far as templates of Ollama's models go: no functions as values, no channels, no complex
numbers. What it says and does is Go's (https://pkg.go.dev/text/template), to the byte."""
