"""The network in other programs' formats, and run by them."""
