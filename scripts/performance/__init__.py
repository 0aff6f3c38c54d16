"""What scripts/bench, scripts/picture and the tests of real readers share: an endpoint, mounted tools, works, wants.

Standard library alone: it runs on any machine that has Python 3.9.
"""
