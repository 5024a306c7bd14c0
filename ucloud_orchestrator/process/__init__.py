"""What every process of ours has: readable logs, and answers to those who ask whether it is
well.
"""
