"""What the serving benchmarks are made of: a server to ask, clients that note what they get, and one question a
module.
"""
