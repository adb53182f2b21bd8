"""What came of a batch's rows, to be looked at while it runs and after its end."""
