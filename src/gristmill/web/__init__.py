"""The dashboard: pages made here, kept up to date by one event stream each. To add one: docs/contributing/page.md."""
